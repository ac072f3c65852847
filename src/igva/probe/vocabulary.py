"""The closed lists: tasks, splits, colours, shapes, words, and the ways a question may be put."""

from typing import NamedTuple

from igva.probe.pack import MIXED

# The paper's six categories and what they are made of here.
CATEGORIES: dict[str, tuple[str, ...]] = {
    "General": ("name", "scene", "caption"),
    "Knowledge": ("kind", "use", "legs", "habitat", "flag"),
    "Chart & OCR": ("read", "chart", "pie", "line", "table", "document"),
    "Vision-Centric": ("count", "position", "size", "depth", "mirror", "turn"),
    "Fine-Grained": ("color", "small", "shade", "texture", "refer"),
    "Hallucination": ("exists", "exists_popular", "exists_adversarial", "attribute"),
}
CATEGORY_OF = {task: category for category, tasks in CATEGORIES.items() for task in tasks}
TASKS: tuple[str, ...] = tuple(CATEGORY_OF)
DESCRIBE = "describe"  # of training pictures only, never tested
CATEGORY_OF[DESCRIBE] = "General"


class Split(NamedTuple):
    """What a split may draw with, and its number, which each of its pictures carries (see scenes)."""

    number: int
    styles: tuple[str, ...]
    fonts: str  # file name prefix inside the pack
    conversations: bool  # several conversations per picture (training); otherwise one question
    suffix: float  # share of conversations whose questions end with SUFFIX
    varied: bool = False  # photographs, drawings by any hand and open questions too


SPLITS: dict[str, Split] = {
    "train": Split(0, ("noto", "fluent", MIXED, MIXED), "train-", True, 0.3, varied=True),
    "val": Split(1, ("noto", "fluent"), "train-", True, 0.3),
    "test": Split(2, ("noto", "fluent"), "test-", False, 0.0),
    "unseen": Split(3, ("twemoji",), "test-", False, 0.0),
}

# The usual answer-format request of visual question answering; IGVA's instruction encoder never sees it.
SUFFIX = "\nAnswer the question using a single word or phrase."

# Far enough apart that the jitter (±10 per channel) and the gradient (±8) never cross a name.
COLORS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 38),
    "orange": (245, 132, 28),
    "yellow": (250, 218, 48),
    "green": (46, 158, 68),
    "blue": (40, 92, 214),
    "purple": (124, 52, 170),
    "pink": (250, 156, 196),
    "brown": (122, 76, 42),
    "black": (20, 20, 20),
    "white": (246, 246, 246),
    "gray": (142, 142, 142),
}

SHAPES: tuple[str, ...] = ("circle", "square", "triangle", "star", "heart", "diamond")

_WORDS = (
    "art bank big book bus city coffee cold cup dance day east exit fast fire first food free "
    "game garden gold good happy hello help home hot jazz king lake light love lunch music new "
    "night north open park peace play quiet rain river sale school shop sky slow smile snow stop "
    "summer taxi tea time water west winter zoo"
)
WORDS: tuple[str, ...] = tuple(_WORDS.split())

# One list per kind of question. {a} is "a cat" or "bread", {x} and {y} bare names, {xs} a plural.
TEMPLATES: dict[str, tuple[str, ...]] = {
    "name": (
        "What is in the picture?",
        "What object is shown here?",
        "What is this?",
        "Name the object in the image.",
        "What does the picture show?",
    ),
    "background": (
        "What color is the background?",
        "What is the background color?",
        "Which color does the background have?",
        "Name the color of the background.",
    ),
    "shape_color": (
        "What color is the {x}?",
        "What is the color of the {x}?",
        "Which color does the {x} have?",
        "Name the color of the {x}.",
    ),
    "count": (
        "How many {xs} are there?",
        "How many {xs} are in the picture?",
        "How many {xs} can you see?",
        "What is the number of {xs} in the image?",
        "Count the {xs}.",
    ),
    "exists": (
        "Is there {a} in the picture?",
        "Is there {a} in this image?",
        "Does the picture show {a}?",
        "Can you see {a} here?",
        "Does the image contain {a}?",
    ),
    "horizontal": (
        "Is the {x} to the left or to the right of the {y}?",
        "Is the {x} left or right of the {y}?",
        "On which side of the {y} is the {x}, left or right?",
        "Compared to the {y}, is the {x} on the left or on the right?",
    ),
    "vertical": (
        "Is the {x} above or below the {y}?",
        "Is the {x} placed above or below the {y}?",
        "Compared to the {y}, is the {x} above or below?",
        "Where is the {x} in relation to the {y}, above or below?",
    ),
    "furthest_left": (
        "Which object is furthest left?",
        "What is the leftmost object?",
        "Name the object on the far left.",
    ),
    "furthest_right": (
        "Which object is furthest right?",
        "What is the rightmost object?",
        "Name the object on the far right.",
    ),
    "larger": (
        "Which is larger, the {x} or the {y}?",
        "Which is bigger, the {x} or the {y}?",
        "What is larger in the picture, the {x} or the {y}?",
        "Of the {x} and the {y}, which one is bigger?",
    ),
    "smaller": (
        "Which is smaller, the {x} or the {y}?",
        "Which one is smaller, the {x} or the {y}?",
        "What is smaller in the picture, the {x} or the {y}?",
        "Of the {x} and the {y}, which one is smaller?",
    ),
    "largest": (
        "What is the largest object?",
        "Which object is the biggest?",
        "Name the largest object in the picture.",
    ),
    "read": (
        "What word is written?",
        "What does the text say?",
        "Which word is written in the picture?",
        "Read the word in the image.",
        "What is the written word?",
    ),
    "tallest": (
        "Which bar is the tallest?",
        "What color is the tallest bar?",
        "Which color has the highest bar?",
        "What is the color of the highest bar?",
    ),
    "shortest": (
        "Which bar is the shortest?",
        "What color is the shortest bar?",
        "Which color has the lowest bar?",
        "What is the color of the lowest bar?",
    ),
    "scene": (
        "Which place do these things belong to?",
        "Where would one find all of these things?",
        "What place do the things in the picture go with?",
        "To which place do the things shown belong?",
    ),
    "caption": (
        "Which caption fits the picture? {options}.",
        "Which of these describes the picture? {options}.",
        "Choose the right caption. {options}.",
    ),
    "kind": (
        "What kind of thing is this?",
        "Which kind of thing does the picture show?",
        "What sort of thing is shown?",
    ),
    "use": (
        "What is this used for?",
        "What does one use this thing for?",
        "For what purpose is the thing in the picture made?",
    ),
    "legs": (
        "How many legs does this animal have?",
        "How many legs does an animal of this kind have?",
        "What is the number of legs of such an animal?",
    ),
    "habitat": (
        "Where does this animal mostly live?",
        "Where would one mostly find this animal?",
        "What is the home of this animal?",
    ),
    "flag": (
        "Which country has this flag?",
        "Whose flag is this?",
        "The flag of which country is shown?",
    ),
    "largest_slice": (
        "Which color has the largest slice?",
        "What color is the biggest slice of the pie?",
        "Which slice of the pie is the largest?",
    ),
    "smallest_slice": (
        "Which color has the smallest slice?",
        "What color is the smallest slice of the pie?",
        "Which slice of the pie is the smallest?",
    ),
    "highest_point": (
        "Where is the highest point of the line: left, middle or right?",
        "In which part does the line reach its highest point, left, middle or right?",
        "Is the peak of the line on the left, in the middle or on the right?",
    ),
    "lowest_point": (
        "Where is the lowest point of the line: left, middle or right?",
        "In which part does the line reach its lowest point, left, middle or right?",
        "Is the lowest point of the line on the left, in the middle or on the right?",
    ),
    "table": (
        "Which number is in row {row}, column {column}?",
        "What does the table say for {row} in column {column}?",
        "What is the value of {row} under {column}?",
    ),
    "document": (
        "What is the {x}?",
        "Which number is the {x}?",
        "How much is the {x}?",
        "What number stands beside {x}?",
    ),
    "depth": (
        "Which is in front, the {x} or the {y}?",
        "Which is nearer, the {x} or the {y}?",
        "Which one covers the other, the {x} or the {y}?",
        "Of the {x} and the {y}, which is in front?",
    ),
    "mirror": (
        "Is the right one a mirror image of the left one?",
        "Is the right picture the left one mirrored?",
        "Has the right one been mirrored?",
    ),
    "turn": (
        "By how many degrees is the right one turned clockwise: 0, 90, 180 or 270?",
        "How many degrees clockwise has the right one been turned, 0, 90, 180 or 270?",
    ),
    "small": (
        "What is the small thing: {options}?",
        "Which is the small thing, {options}?",
        "What is the tiny object: {options}?",
    ),
    "darker": (
        "Which patch is the darkest?",
        "Where is the darkest patch?",
        "One patch is darker than the others: where?",
    ),
    "lighter": (
        "Which patch is the lightest?",
        "Where is the lightest patch?",
        "One patch is lighter than the others: where?",
    ),
    "texture": (
        "Which pattern does the {x} have?",
        "What pattern is on the {x}?",
        "How is the {x} filled: striped, dotted, checkered, plain or zigzag?",
    ),
    "refer": (
        "What is in the {c} box?",
        "Which object is in the {c} frame?",
        "Name the object with the {c} box around it.",
    ),
    "attribute": (
        "Is the {x} {c}?",
        "Is the color of the {x} {c}?",
        "Does the picture show a {c} {x}?",
    ),
    "describe": (
        "Describe the picture.",
        "What does the picture show, and where?",
        "Tell what there is to see.",
    ),
    "from_left": (
        "Name the things from left to right.",
        "What is there, from left to right?",
    ),
    "from_top": (
        "Name the things from top to bottom.",
        "What is there, from top to bottom?",
    ),
    "from_largest": (
        "Name the things from the largest to the smallest.",
        "What is there, by size, the largest first?",
    ),
    "where_is": (
        "Where is the {x}?",
        "In which part of the picture is the {x}?",
    ),
    "what_is_at": (
        "What is at the {place}?",
        "Which thing is at the {place}?",
    ),
    "spell": (
        "Spell the written word.",
        "Which letters are written in the picture?",
    ),
    "bars": (
        "Name the bars from left to right.",
        "Which colors do the bars have, from left to right?",
    ),
    "tallest_first": (
        "Name the bars from the tallest to the shortest.",
        "Which colors do the bars have, by height, the tallest first?",
    ),
    "slices": (
        "Name the slices from the largest to the smallest.",
        "Which colors do the slices have, by size, the largest first?",
    ),
    "read_table": (
        "Read the table row by row.",
        "What is written in the table?",
    ),
    "read_bill": (
        "Read the bill line by line.",
        "What is written on the bill?",
    ),
    "flag_look": (
        "What does the flag look like?",
        "Describe the flag.",
    ),
}

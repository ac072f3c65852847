"""The closed lists: tasks, splits, colours, shapes, words, and the ways a question may be put."""

from typing import NamedTuple

TASKS: tuple[str, ...] = ("name", "color", "count", "exists", "position", "size", "read", "chart")


class Split(NamedTuple):
    """What a split may draw with, and its number, which each of its pictures carries (see scenes)."""

    number: int
    styles: tuple[str, ...]
    fonts: str  # file name prefix inside the pack
    conversations: bool  # several conversations per picture (training); otherwise one question
    suffix: float  # share of conversations whose questions end with SUFFIX


SPLITS: dict[str, Split] = {
    "train": Split(0, ("noto", "fluent"), "train-", True, 0.3),
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
}

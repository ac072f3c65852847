"""More questions about a training picture, of tasks that have scenes of their own: what else its things allow to ask.

Like those of ``questions``, each function draws what it needs from the scene's own random stream and gives [] where
the scene does not carry its task.
"""

from collections.abc import Callable, Mapping

from igva.probe import pack
from igva.probe.draw_charts import COLUMNS, DIGITS, FIELDS, ROWS
from igva.probe.draw_general import LETTERS, captions
from igva.probe.draw_hallucination import ALIKE
from igva.probe.facts import HABITATS, KINDS, LEGS, POPULAR, USES
from igva.probe.questions import Question, ask_exists, drawn_names, phrase, side_of, single_shapes, unlike_things
from igva.probe.scenes import Scene, pick_names
from igva.probe.vocabulary import COLORS

PIE_MARGIN = 0.1  # of the whole pie, between the slice asked for and the next


def about(task: str, groups: Mapping[str, tuple[str, ...]]) -> Callable[[Scene], list[Question]]:
    """To which group does the one thing shown belong?"""

    def ask(scene: Scene) -> list[Question]:
        names = {thing.name for thing in scene.things}
        if len(names) != 1 or not scene.of_kind("object"):
            return []
        fitting = [group for group, members in groups.items() if names <= set(members)]
        if len(fitting) != 1:
            return []
        return [Question(task, phrase(scene.rng, task), fitting[0], tuple(groups))]

    return ask


more_kind = about("kind", KINDS)
more_use = about("use", USES)
more_legs = about("legs", LEGS)
more_habitat = about("habitat", HABITATS)


def more_caption(scene: Scene) -> list[Question]:
    """Which of four captions fits two objects side by side?"""
    pair = sorted(unlike_things(scene), key=lambda thing: thing.center[0])
    if len(pair) != 2 or len(scene.things) != 2 or not scene.of_kind("object"):
        return []
    if side_of("horizontal", *pair) != "left":
        return []
    left, right = (thing.name for thing in pair)
    others = pick_names(scene, 2, avoid=[left, right])
    letter = scene.rng.choice(LETTERS)
    told = captions(scene.rng, letter, (left, right), (others[0], others[1]))
    return [Question("caption", phrase(scene.rng, "caption", options=told), letter, LETTERS)]


def _exists(scene: Scene, task: str, company: Callable[[str], tuple[str, ...]]) -> list[Question]:
    """Two turns at most, each yes or no by a fair coin: a thing that is there, or one of its company that is not."""
    rng, table = scene.rng, pack.nouns()
    names = [name for name in drawn_names(scene) if company(name)]
    found: dict[str, Question] = {}
    for name in rng.sample(names, min(2, len(names))):
        here = drawn_names(scene)
        absent = [
            other
            for other in company(name)
            if other not in here and not any(near in table[other].kin for near in here) and other not in found
        ]
        there = rng.random() < 0.5
        if not there and not absent:
            continue
        asked = name if there else rng.choice(absent)
        question = ask_exists(scene, table[asked].phrase, there)
        found[asked] = Question(task, question.question, question.answer, question.choices)
    return list(found.values())


def more_popular(scene: Scene) -> list[Question]:
    """Are things that are often drawn among these?"""
    return _exists(scene, "exists_popular", lambda name: POPULAR if name in POPULAR else ())


def more_adversarial(scene: Scene) -> list[Question]:
    """Is it there, or something else of its kind?"""
    return _exists(scene, "exists_adversarial", lambda name: ALIKE.get(name, ()))


def more_attribute(scene: Scene) -> list[Question]:
    """Has a shape this colour, or is it another shape's?"""
    shapes = single_shapes(scene)
    if len({shape.color for shape in shapes}) < 2:
        return []
    questions = []
    for shape in scene.rng.sample(shapes, 2):
        others = sorted({str(other.color) for other in shapes} - {str(shape.color)})
        true = scene.rng.random() < 0.5
        color = str(shape.color) if true else scene.rng.choice(others)
        text = phrase(scene.rng, "attribute", x=shape.name, c=color)
        questions.append(Question("attribute", text, "yes" if true else "no", ("yes", "no")))
    return questions


def more_refer(scene: Scene) -> list[Question]:
    """What is in another of the frames?"""
    framed = [thing for thing in scene.of_kind("object") if thing.color is not None]
    choices = drawn_names(scene)
    return [
        Question("refer", phrase(scene.rng, "refer", c=str(thing.color)), thing.name, choices)
        for thing in scene.rng.sample(framed, min(2, len(framed)))
    ]


def more_pie(scene: Scene) -> list[Question]:
    """The colour of the slice at the other end, where it is clear."""
    slices = sorted(scene.of_kind("slice"), key=lambda thing: thing.area)
    if not slices:
        return []
    ends = {"smallest": (slices[0], slices[1]), "largest": (slices[-1], slices[-2])}
    return [
        Question("pie", phrase(scene.rng, f"{which}_slice"), str(end.color), tuple(COLORS))
        for which, (end, following) in ends.items()
        if abs(end.area - following.area) >= PIE_MARGIN
    ]


def more_table(scene: Scene) -> list[Question]:
    """Three other cells of a table."""
    texts = [thing.name for thing in scene.of_kind("text")]
    rows, digits = [text for text in texts if text in ROWS], [text for text in texts if text in DIGITS]
    if len(rows) != 3 or len(digits) != 9:
        return []
    return [
        Question(
            "table",
            phrase(scene.rng, "table", row=rows[at // 3], column=COLUMNS[at % 3].upper()),
            digits[at],
            DIGITS,
        )
        for at in scene.rng.sample(range(9), 3)
    ]


def more_document(scene: Scene) -> list[Question]:
    """Two other lines of a bill."""
    texts = [thing.name for thing in scene.of_kind("text")]
    if not texts or texts[0] not in FIELDS:
        return []
    numbers = dict(zip(texts[::2], texts[1::2], strict=True))
    return [
        Question("document", phrase(scene.rng, "document", x=field), numbers[field], tuple(sorted(numbers.values())))
        for field in scene.rng.sample(sorted(numbers), 2)
    ]

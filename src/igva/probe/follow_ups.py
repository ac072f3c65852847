"""More questions about a training picture, of tasks that have scenes of their own: what else its things allow to ask.

Like those of ``questions``, each function draws what it needs from the scene's own random stream and gives [] where
the scene does not carry its task.
"""

from collections.abc import Callable, Mapping

from igva.probe import pack
from igva.probe.draw_charts import DIGITS, FIELDS, PIE_MARGIN, ROWS, ask_cell, ask_field, ask_slice
from igva.probe.draw_fine import ask_framed
from igva.probe.draw_general import LETTERS, ask_caption
from igva.probe.draw_hallucination import ALIKE, ask_attribute
from igva.probe.draw_knowledge import ask_group
from igva.probe.facts import HABITATS, KINDS, LEGS, POPULAR, USES
from igva.probe.questions import Question, ask_exists, drawn_names, side_of, single_shapes, unlike_things
from igva.probe.scenes import Scene, pick_names


def _of_group(task: str, groups: Mapping[str, tuple[str, ...]]) -> Callable[[Scene], list[Question]]:
    """To which group does the one thing shown belong?"""

    def more(scene: Scene) -> list[Question]:
        names = {thing.name for thing in scene.things}
        if len(names) != 1 or not scene.of_kind("object"):
            return []
        fitting = [group for group, members in groups.items() if names <= set(members)]
        return [ask_group(scene, task, fitting[0], groups)] if len(fitting) == 1 else []

    return more


more_kind = _of_group("kind", KINDS)
more_use = _of_group("use", USES)
more_legs = _of_group("legs", LEGS)
more_habitat = _of_group("habitat", HABITATS)


def more_caption(scene: Scene) -> list[Question]:
    """Which of four captions fits two objects side by side?"""
    pair = sorted(unlike_things(scene), key=lambda thing: thing.center[0])
    if len(pair) != 2 or len(scene.things) != 2 or not scene.of_kind("object"):
        return []
    if side_of("horizontal", *pair) != "left":
        return []
    left, right = (thing.name for thing in pair)
    others = pick_names(scene, 2, avoid=[left, right])
    return [ask_caption(scene, scene.rng.choice(LETTERS), (left, right), (others[0], others[1]))]


def _exists(scene: Scene, task: str, company: Callable[[str], tuple[str, ...]]) -> list[Question]:
    """Two turns at most, each yes or no by a fair coin: a thing that is there, or one of its company that is not."""
    rng, here = scene.rng, drawn_names(scene)
    names = [name for name in here if company(name)]
    found: dict[str, Question] = {}
    for name in rng.sample(names, min(2, len(names))):
        absent = [other for other in company(name) if pack.apart(other, here) and other not in found]
        there = rng.random() < 0.5
        if not there and not absent:
            continue
        asked = name if there else rng.choice(absent)
        found[asked] = ask_exists(scene, pack.noun(asked).phrase, there, task)
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
        own = str(shape.color)
        others = sorted({str(other.color) for other in shapes} - {own})
        true = scene.rng.random() < 0.5
        questions.append(ask_attribute(scene, shape.name, own if true else scene.rng.choice(others), true))
    return questions


def more_refer(scene: Scene) -> list[Question]:
    """What is in another of the frames?"""
    framed = [thing for thing in scene.of_kind("object") if thing.color is not None]
    return [ask_framed(scene, thing) for thing in scene.rng.sample(framed, min(2, len(framed)))]


def more_pie(scene: Scene) -> list[Question]:
    """The colour of the slices at either end, where they are clear."""
    slices = sorted(scene.of_kind("slice"), key=lambda thing: thing.area)
    if not slices:
        return []
    ends = {"smallest": (slices[0], slices[1]), "largest": (slices[-1], slices[-2])}
    return [
        ask_slice(scene, which, str(end.color))
        for which, (end, following) in ends.items()
        if abs(end.area - following.area) >= PIE_MARGIN
    ]


def more_table(scene: Scene) -> list[Question]:
    """Three cells of a table."""
    texts = [thing.name for thing in scene.of_kind("text")]
    rows, digits = [text for text in texts if text in ROWS], [text for text in texts if text in DIGITS]
    if len(rows) != 3 or len(digits) != 9:
        return []
    return [ask_cell(scene, rows, at, digits[at]) for at in scene.rng.sample(range(9), 3)]


def more_document(scene: Scene) -> list[Question]:
    """Two lines of a bill."""
    texts = [thing.name for thing in scene.of_kind("text")]
    if not texts or texts[0] not in FIELDS:
        return []
    bill = dict(zip(texts[::2], texts[1::2], strict=True))
    return [ask_field(scene, field, bill) for field in scene.rng.sample(sorted(bill), 2)]

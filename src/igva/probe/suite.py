"""From (split, index, seed) to a picture and all that is asked and told of it."""

import functools
from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image

from igva.errors import UserError
from igva.probe import imagined, pack, photos, scenes
from igva.probe.describe import DESCRIBE, describe_things
from igva.probe.drawing import SHAPES
from igva.probe.edition import (
    FOLLOW_UP_SHARES,
    FOLLOW_UPS,
    NO_THING,
    PHOTO,
    SUFFIX,
    cycle_of,
    index_of,
    scheduled,
    split_of,
)
from igva.probe.imagined import Imagined
from igva.probe.scenes import COLORS, Scene
from igva.probe.task_base import Dealer, Question, stream
from igva.probe.tasks import task_of

MOST_TALKS = 6  # conversations per training picture, beside its description
MOST_DESCRIPTIONS = 3  # turns of that
MOST_MORE = 4  # turns after the scheduled question, of its task


@dataclass(frozen=True)
class Conversation:
    """Turns about one task; ``suffix`` says whether its questions end with the answer-format request.

    Turns about something ``imagined`` may be of several tasks; ``task`` is the first one's.
    """

    task: str
    turns: tuple[Question, ...]
    suffix: bool
    imagined: Imagined | None = None

    def messages(self) -> list[dict[str, str]]:
        """LLaVA's form: the image token stands in the first question."""
        out = []
        for number, turn in enumerate(self.turns):
            text = turn.question + (SUFFIX if self.suffix else "")
            out.append({"from": "human", "value": ("<image>\n" if number == 0 else "") + text})
            out.append({"from": "gpt", "value": turn.answer})
        return out


@dataclass(frozen=True)
class ProbeSample:
    """A picture (224×224 RGB), the words of its 8×8 cells (row by row), and what is asked about it.

    The first turn of the first conversation is the scheduled question, whose answers are balanced
    over the split; it is the only one in ``test`` and ``unseen``. ``photo_cells`` are the cells (0-63) that show a
    photograph.
    """

    image: Image.Image
    cells: list[str]
    conversations: tuple[Conversation, ...]
    photo_cells: tuple[int, ...] = ()

    @property
    def questions(self) -> list[Question]:
        """All turns of all conversations."""
        return [turn for conversation in self.conversations for turn in conversation.turns]


def sample(split: str, index: int, seed: int = 0, attempt: int = 0, tasks: Sequence[str] = ()) -> ProbeSample:
    """Picture number ``index`` of a split; independent of how many are built, and of what tasks there are besides.

    Args:
        attempt: draws another picture for the same index (``build`` uses it should two coincide).
        tasks: draw for these alone, by turns, instead of all that are published; a published task's pictures are those
            that the whole split has of it.

    Raises:
        UserError: an unknown split or task, or a negative index.
    """
    spec = split_of(split)
    if index < 0:
        raise UserError(f"index {index} is negative; count pictures from 0")
    for name in tasks:
        task_of(name)
    task, number = scheduled(tasks or cycle_of(split), index)
    rng, dealer = stream(*_key(split, task, number, seed), attempt), Dealer(seed, split, number)
    talks: tuple[Conversation, ...] = ()
    if task == NO_THING:
        scene = photos.no_thing(rng, spec)
    else:
        scene, first = (photos.DRAW[task] if task in photos.DRAW else task_of(task).draw)(rng, spec, dealer)
        talks = _converse(scene, first) if spec.conversations else (Conversation(task, (first,), False),)
    if spec.varied:
        talks = (*talks, *_imagining(scene, dealer, task))
        scenes.wear(scene)
    return ProbeSample(scene.image, scene.cells(), talks, tuple(scene.photo_cells()))


def _key(split: str, task: str, number: int, seed: int) -> tuple[object, ...]:
    """What the random stream of a task's ``number``-th picture is named after: published ones after their index in the
    split, which must not move; others after their task, so that no task's pictures depend on another's."""
    cycle = cycle_of(split)
    return (seed, split, index_of(cycle, task, number)) if task in cycle else (seed, split, task, number)


def _converse(scene: Scene, first: Question) -> tuple[Conversation, ...]:
    """The scheduled question with more turns of its task, conversations about other tasks, then a description."""
    rng, task = scene.rng, task_of(first.task)
    more = [turn for turn in task.more(scene) if _is_new(turn, first)] if task.more else []
    talks: list[tuple[str, list[Question]]] = [(task.name, [_put(scene, first), *more[:MOST_MORE]])]
    others = {} if scene.alone else _follow_ups(scene, task.name)
    kept = {name: turns for name, turns in others.items() if turns and rng.random() < FOLLOW_UP_SHARES.get(name, 1.0)}
    while kept and len(talks) < MOST_TALKS:
        name = rng.choice(list(kept))
        known = {subject_of(turn) for _, turns in talks for turn in turns}
        if turns := [turn for turn in kept.pop(name) if subject_of(turn) not in known]:
            talks.append((name, [_put(scene, turn) for turn in turns]))
    asked = [Conversation(name, tuple(turns), rng.random() < scene.split.suffix) for name, turns in talks]
    if descriptions := _descriptions(scene, first):
        turns = rng.sample(descriptions, min(MOST_DESCRIPTIONS, len(descriptions)))
        asked.append(Conversation(DESCRIBE, tuple(turns), suffix=False))
    return tuple(asked)


def _follow_ups(scene: Scene, drawn_for: str) -> dict[str, list[Question]]:
    """What the published tasks ask of a picture that is drawn for another."""
    tasks = [task_of(name) for name in FOLLOW_UPS if name != drawn_for]
    return {task.name: task.more(scene) for task in tasks if task.more}


def _descriptions(scene: Scene, first: Question) -> list[Question]:
    """All that can be told of a scene beside its first question; [] where there is nothing."""
    if describe := task_of(first.task).describe:
        return describe(scene, first)
    return [] if scene.alone else describe_things(scene, first)


def _put(scene: Scene, turn: Question) -> Question:
    """A question as it is put: in training sometimes more freely."""
    reword = task_of(turn.task).reword
    return reword(scene, turn) if scene.split.varied and reword else turn


def subject_of(turn: Question) -> tuple[str, ...]:
    """What a turn asks: whether a thing is there is one question, however it is put and whatever its task."""
    return (task_of(turn.task).subject or turn.task, *_mentioned(turn), turn.answer)


def _mentioned(turn: Question) -> list[str]:
    words = turn.question.rstrip("?").replace(",", "").split()
    return [word for word in words if word in _names()]


@functools.cache
def _names() -> frozenset[str]:
    """All that things and colours are called."""
    return frozenset((*pack.nouns(), *pack.photo_nouns(), *SHAPES, *COLORS))


def _is_new(turn: Question, first: Question) -> bool:
    """Whether a further turn asks something else than the first: same kind of question about the same
    things would repeat it or give its answer away."""
    repeats = task_of(turn.task).repeats
    if repeats == "things":
        return not set(_mentioned(turn)) <= set(_mentioned(first))
    return repeats == "none" or turn.answer != first.answer


def _imagining(scene: Scene, dealer: Dealer, task: str) -> list[Conversation]:
    """The conversations about photographs that are not there, of pictures that are drawn for it."""
    if task not in (PHOTO, NO_THING):
        return []
    rng = scene.rng
    talks = imagined.conversations(scene, dealer, task)
    return [Conversation(turns[0].task, turns, rng.random() < scene.split.suffix, what) for what, turns in talks]

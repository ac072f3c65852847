"""From (split, index, seed) to a picture with questions, and from a split to files."""

import contextlib
import dataclasses
import functools
import hashlib
import json
import math
import multiprocessing
import random
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from igva.errors import UserError
from igva.probe import (
    describe,
    draw_basic,
    draw_charts,
    draw_fine,
    draw_general,
    draw_hallucination,
    draw_knowledge,
    draw_photos,
    draw_vision,
    follow_ups,
    imagined,
    open_questions,
    pack,
    questions,
    scenes,
)
from igva.probe.dealer import Dealer, Drawn, stream
from igva.probe.imagined import Imagined
from igva.probe.questions import Question
from igva.probe.scenes import Scene
from igva.probe.vocabulary import (
    CATEGORIES,
    CATEGORY_OF,
    COLORS,
    DESCRIBE,
    SHAPES,
    SPLITS,
    SUFFIX,
    TASKS,
    TEMPLATES,
    Split,
)

# Which task picture number i is drawn for. Evaluation: categories alike, tasks alike within each. Training: more
# pictures for what takes long to learn (places, numbers, words, 311 names) and what only its own scenes can carry, few
# for what others carry as well (color, exists) or what a few pictures of each thing teach (kind, use).
_LONGEST = math.lcm(*(len(tasks) for tasks in CATEGORIES.values()))
EVAL_CYCLE = tuple(tasks[number % len(tasks)] for number in range(_LONGEST) for tasks in CATEGORIES.values())
TRAIN_SHARES = {
    "name": 8,
    **dict.fromkeys(("read", "count", "refer", "position"), 4),
    **dict.fromkeys(("flag", "pie", "line", "table", "document", "size", "small", "shade", "attribute"), 3),
    **dict.fromkeys(("scene", "kind", "use", "legs", "habitat", "color", "texture"), 1),
    **dict.fromkeys(("exists", "exists_popular", "exists_adversarial"), 1),
}
_MOST = max(TRAIN_SHARES.values())
# Beside them, two of five: pictures made for photographs, of one thing, of several, and of none (for imagined ones).
PHOTO, PHOTOS, NO_THING = "photo", "photos", "no thing"
PHOTO_SHARES = {PHOTO: 28, PHOTOS: 9, NO_THING: 10}


def _spread(shares: dict[str, int], rounds: int) -> list[list[str]]:
    """Each key as often as its share, dealt over ``rounds`` as evenly as can be."""
    dealt: list[list[str]] = [[] for _ in range(rounds)]
    for key, share in shares.items():
        for number in range(share):
            dealt[number * rounds // share].append(key)
    return dealt


_DRAWN = [[task for task in TASKS if part < TRAIN_SHARES.get(task, 2)] for part in range(_MOST)]
_PHOTOS = _spread(PHOTO_SHARES, _MOST)
VAL_CYCLE = tuple(task for drawn in _DRAWN for task in drawn)
TRAIN_CYCLE = tuple(task for drawn, photos in zip(_DRAWN, _PHOTOS, strict=True) for task in (*drawn, *photos))
# Of the further conversations that a training picture could carry about a task, the share that is kept (others: all):
# the less, the more scenes carry it.
EXTRA_SHARES = {"color": 0.1, "exists": 0.3, "exists_adversarial": 0.5}
MOST_TALKS = 6  # conversations per training picture, beside its description
MOST_TOLD = 3  # turns of that


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


def scheduled(split: str, index: int) -> tuple[str, int]:
    """What picture ``index`` is drawn for, and how many earlier ones are drawn for the same: a task, or in training
    also ``PHOTO``, ``PHOTOS`` or ``NO_THING``."""
    cycle = TRAIN_CYCLE if SPLITS[split].varied else VAL_CYCLE if SPLITS[split].conversations else EVAL_CYCLE
    rounds, place = divmod(index, len(cycle))
    task = cycle[place]
    return task, rounds * cycle.count(task) + cycle[:place].count(task)


DRAW: dict[str, Callable[[random.Random, Split, Dealer], Drawn]] = {
    "name": draw_basic.name,
    "scene": draw_general.scene,
    "caption": draw_general.caption,
    "kind": draw_knowledge.kind,
    "use": draw_knowledge.use,
    "legs": draw_knowledge.legs,
    "habitat": draw_knowledge.habitat,
    "flag": draw_knowledge.flag,
    "read": draw_basic.read,
    "chart": draw_basic.chart,
    "pie": draw_charts.pie,
    "line": draw_charts.line,
    "table": draw_charts.table,
    "document": draw_charts.document,
    "count": draw_basic.count,
    "position": draw_basic.position,
    "size": draw_basic.size,
    "depth": draw_vision.depth,
    "mirror": draw_vision.mirror,
    "turn": draw_vision.turn,
    "color": draw_basic.color,
    "small": draw_fine.small,
    "shade": draw_fine.shade,
    "texture": draw_fine.texture,
    "refer": draw_fine.refer,
    "exists": draw_basic.exists,
    "exists_popular": draw_hallucination.popular,
    "exists_adversarial": draw_hallucination.adversarial,
    "attribute": draw_hallucination.attribute,
    PHOTO: draw_photos.photo,
    PHOTOS: draw_photos.photos,
}

MORE: dict[str, Callable[[Scene], list[Question]]] = {
    "exists": questions.more_exists,
    "name": questions.more_name,
    "position": questions.more_position,
    "size": questions.more_size,
    "color": questions.more_color,
    "chart": questions.more_chart,
    "count": questions.more_count,
    "kind": follow_ups.more_kind,
    "use": follow_ups.more_use,
    "legs": follow_ups.more_legs,
    "habitat": follow_ups.more_habitat,
    "caption": follow_ups.more_caption,
    "exists_popular": follow_ups.more_popular,
    "exists_adversarial": follow_ups.more_adversarial,
    "attribute": follow_ups.more_attribute,
    "refer": follow_ups.more_refer,
    "pie": follow_ups.more_pie,
    "table": follow_ups.more_table,
    "document": follow_ups.more_document,
}


def _converse(scene: Scene, first: Question) -> tuple[Conversation, ...]:
    """The scheduled question with more turns of its task, conversations about other tasks, then a description."""
    rng = scene.rng
    follow = [turn for turn in MORE[first.task](scene) if _new(turn, first)] if first.task in MORE else []
    talks: list[tuple[str, list[Question]]] = [(first.task, [_put(scene, first), *follow[:4]])]
    found = {task: more(scene) for task, more in MORE.items() if task != first.task and not scene.alone}
    left = {task: turns for task, turns in found.items() if turns and rng.random() < EXTRA_SHARES.get(task, 1.0)}
    while left and len(talks) < MOST_TALKS:
        task = rng.choice(list(left))
        known = {subject_of(turn) for _, turns in talks for turn in turns}
        if turns := [turn for turn in left.pop(task) if subject_of(turn) not in known]:
            talks.append((task, [_put(scene, turn) for turn in turns]))
    asked = [Conversation(task, tuple(turns), rng.random() < scene.split.suffix) for task, turns in talks]
    if told := describe.descriptions(scene, first):
        asked.append(Conversation(DESCRIBE, tuple(rng.sample(told, min(MOST_TOLD, len(told)))), suffix=False))
    return tuple(asked)


def _put(scene: Scene, turn: Question) -> Question:
    """A question as it is put: in training sometimes more freely."""
    return open_questions.reworded(scene, turn) if scene.split.varied else turn


def subject_of(turn: Question) -> tuple[str, ...]:
    """What a turn asks: whether a thing is there is one question, however it is put and whatever its task."""
    kind = "exists" if turn.task.startswith("exists") else turn.task
    return (kind, *_mentioned(turn), turn.answer)


def _mentioned(turn: Question) -> list[str]:
    words = turn.question.rstrip("?").replace(",", "").split()
    return [
        word for word in words if word in pack.nouns() or word in SHAPES or word in COLORS or word in _only_photos()
    ]


@functools.cache
def _only_photos() -> frozenset[str]:
    """The names that only photographs have, without those that are words of questions too."""
    said = {word.strip("?.,:") for ways in TEMPLATES.values() for way in ways for word in way.split()}
    return frozenset(pack.photo_nouns()) - said


def _new(turn: Question, first: Question) -> bool:
    """Whether a further turn asks something else than the first: same kind of question about the same
    things would repeat it or give its answer away."""
    if turn.task == "count":
        return True
    if turn.task in ("attribute", "caption", "position", "size") or turn.task.startswith("exists"):
        return not set(_mentioned(turn)) <= set(_mentioned(first))
    return turn.answer != first.answer


def sample(split: str, index: int, seed: int = 0, attempt: int = 0) -> ProbeSample:
    """Picture number ``index`` of a split; independent of how many are built.

    ``attempt`` draws another picture for the same place (``build`` uses it should two coincide).
    Raises ``UserError`` for an unknown split or a negative index.
    """
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; use one of {', '.join(SPLITS)}")
    if index < 0:
        raise UserError(f"index {index} is negative; count pictures from 0")
    task, number = scheduled(split, index)
    rng, spec, dealer = stream(seed, split, index, attempt), SPLITS[split], Dealer(seed, split, number)
    talks: tuple[Conversation, ...] = ()
    if task == NO_THING:
        scene = draw_photos.no_thing(rng, spec)
    else:
        scene, first = DRAW[task](rng, spec, dealer)
        talks = _converse(scene, first) if spec.conversations else (Conversation(task, (first,), False),)
    if spec.varied:
        talks = (*talks, *_imagining(scene, dealer, task))
        scenes.handed_on(scene)
    return ProbeSample(scene.image, scene.cells(), talks, tuple(scene.photo_cells()))


def _imagining(scene: Scene, dealer: Dealer, task: str) -> list[Conversation]:
    """The conversations about photographs that are not there, of pictures that are drawn for it."""
    if task not in (PHOTO, NO_THING):
        return []
    rng = scene.rng
    talks = imagined.conversations(scene, dealer, task)
    return [Conversation(turns[0].task, turns, rng.random() < scene.split.suffix, what) for what, turns in talks]


# --- files ---------------------------------------------------------------------------------------


def image_name(index: int) -> str:
    """Path of a picture inside the folder of a split."""
    return f"images/{index:06d}.png"


def picture_hash(image: Image.Image) -> str:
    """SHA-256 of the pixels."""
    return hashlib.sha256(image.tobytes()).hexdigest()


def _write(job: tuple[str, int, int, int, str]) -> tuple[str, ProbeSample]:
    """Draw one picture and save it; returns its hash, and what is known of it without the picture itself."""
    split, index, seed, attempt, folder = job
    made = sample(split, index, seed, attempt)
    made.image.save(Path(folder, image_name(index)), compress_level=4)
    return picture_hash(made.image), dataclasses.replace(made, image=Image.new("RGB", (1, 1)))


@contextlib.contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """``map``, or an ordered map over worker processes."""
    if workers == 1:
        yield map
        return
    # Spawned, not forked: the caller may hold threads (torch), which a fork would deadlock.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield lambda function, jobs: pool.imap(function, jobs, chunksize=16)


def build(split: str, out: Path, count: int, seed: int = 0, workers: int = 1) -> Path:
    """Write ``count`` pictures of a split with their questions into the folder ``out``; returns it.

    ``images/``, ``cells.json`` (path -> 64 words); ``data.json`` (LLaVA conversations) for train and
    val; ``photos.json`` (path -> the cells that show a photograph) for train; ``questions.json`` (one
    question per picture) for val, test and unseen. The files depend on (split, count, seed) only.
    ``out`` appears complete or not at all. Raises ``UserError`` for an
    unknown split, a count or number of workers below 1, or an ``out`` that exists and is not empty.
    """
    from tqdm import tqdm

    out = Path(out)
    if split not in SPLITS:
        raise UserError(f"unknown split {split!r}; use one of {', '.join(SPLITS)}")
    if count < 1:
        raise UserError(f"count is {count}; ask for at least 1 picture")
    if workers < 1:
        raise UserError(f"workers is {workers}; use at least 1")
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UserError(f"{out} exists and is not empty; remove it or choose another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    staging = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        (staging / "images").mkdir()
        records: list[dict[str, Any]] = []
        asked: list[dict[str, Any]] = []
        cells: dict[str, list[str]] = {}
        photos: dict[str, dict[str, list[int]]] = {}
        seen: set[str] = set()
        jobs = [(split, index, seed, 0, str(staging)) for index in range(count)]
        with _mapper(workers) as mapper:
            results = mapper(_write, jobs)
            for index, result in enumerate(tqdm(results, total=count, desc=split, unit=" pictures")):
                attempt = 0
                while result[0] in seen:
                    attempt += 1
                    result = _write((split, index, seed, attempt, str(staging)))
                digest, made = result
                seen.add(digest)
                cells[image_name(index)] = made.cells
                if made.photo_cells:
                    photos[image_name(index)] = {"cells": list(made.photo_cells)}
                records += _records(split, index, made.conversations)
                asked.append(_asked(split, index, made.conversations[0].turns[0]))
        _dump(staging / "cells.json", cells)
        if SPLITS[split].varied:
            _dump(staging / "photos.json", photos)
        if SPLITS[split].conversations:
            _dump(staging / "data.json", records)
        if split != "train":
            _dump(staging / "questions.json", asked)
        staging.chmod(0o755)  # mkdtemp's folders are private
        if out.exists():
            out.rmdir()
        staging.rename(out)
    except BaseException:
        shutil.rmtree(staging, ignore_errors=True)
        raise
    return out


def _records(split: str, index: int, talks: Sequence[Conversation]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{split}-{index:06d}-{number}",
            "image": image_name(index),
            "conversations": talk.messages(),
            "task": talk.task,
            "category": CATEGORY_OF[talk.task],
            "choices": [list(turn.choices) for turn in talk.turns],
            **({"imagined": talk.imagined.record()} if talk.imagined else {}),
        }
        for number, talk in enumerate(talks)
    ]


def _asked(split: str, index: int, question: Question) -> dict[str, Any]:
    return {
        "id": f"{split}-{index:06d}",
        "image": image_name(index),
        "question": question.question,
        "answer": question.answer,
        "choices": list(question.choices),
        "task": question.task,
        "category": CATEGORY_OF[question.task],
    }


def _dump(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

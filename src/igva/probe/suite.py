"""From (split, index, seed) to a picture with questions, and from a split to files."""

import contextlib
import functools
import hashlib
import itertools
import json
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
from igva.probe import pack, questions, scenes
from igva.probe.questions import Question
from igva.probe.scenes import Scene
from igva.probe.vocabulary import COLORS, SPLITS, SUFFIX, TASKS, WORDS, Split

# Which task picture number i is drawn for. Evaluation: all alike. Training: a question that only its
# own scenes can carry (count, read) needs more pictures than one that others carry as well (color).
EVAL_CYCLE = TASKS
TRAIN_CYCLE = (
    *("count", "read", "name", "size", "count", "read", "chart", "name", "position", "count", "read"),
    *("size", "exists", "count", "read", "name", "chart", "count", "size", "read", "name", "color"),
    *("count", "read", "chart", "size", "name", "count", "read", "position", "count", "name", "chart"),
    *("size", "read"),
)
# How readily a further conversation of a training picture is about a task.
EXTRA_WEIGHTS = {"exists": 1.4, "name": 12.0, "position": 4.0, "size": 8.0, "color": 1.0}


@dataclass(frozen=True)
class Conversation:
    """Turns about one task; ``suffix`` says whether its questions end with the answer-format request."""

    task: str
    turns: tuple[Question, ...]
    suffix: bool

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
    over the split; it is the only one in ``test`` and ``unseen``.
    """

    image: Image.Image
    cells: list[str]
    conversations: tuple[Conversation, ...]

    @property
    def questions(self) -> list[Question]:
        """All turns of all conversations."""
        return [turn for conversation in self.conversations for turn in conversation.turns]


def _stream(*key: object) -> random.Random:
    """A random stream of its own for a key, the same in every process and on every machine."""
    digest = hashlib.sha256("/".join(map(str, key)).encode()).digest()
    return random.Random(int.from_bytes(digest[:16], "big"))


@functools.lru_cache(maxsize=256)
def _deck(seed: int, split: str, name: str, block: int, cards: tuple[Any, ...]) -> tuple[Any, ...]:
    """``cards`` shuffled anew for each block: going through block after block deals each equally often."""
    return tuple(_stream(seed, split, "deck", name, block).sample(cards, len(cards)))


def scheduled(split: str, index: int) -> tuple[str, int]:
    """The task of picture ``index``, and how many earlier pictures have the same task."""
    cycle = TRAIN_CYCLE if SPLITS[split].conversations else EVAL_CYCLE
    rounds, place = divmod(index, len(cycle))
    task = cycle[place]
    return task, rounds * cycle.count(task) + cycle[:place].count(task)


class _Dealer:
    """Deals what the ``number``-th question of a task must be about, from the task's decks."""

    def __init__(self, seed: int, split: str, number: int) -> None:
        self.seed, self.split, self.number = seed, split, number

    def deal(self, name: str, cards: tuple[Any, ...], number: int | None = None) -> Any:
        """The card for this question (or for another number)."""
        block, place = divmod(self.number if number is None else number, len(cards))
        return _deck(self.seed, self.split, name, block, cards)[place]


Drawn = tuple[Scene, Question]


def _name(rng: random.Random, split: Split, dealer: _Dealer) -> Drawn:
    name = dealer.deal("name", tuple(pack.nouns()))
    scene = scenes.background_for(rng, split, name)
    scenes.draw_objects(scene, [name], scenes.scatter(rng, [rng.randint(64, 112)]))
    return scene, questions.ask_name(scene, name)


def _color(rng: random.Random, split: Split, dealer: _Dealer) -> Drawn:
    color, shaped = dealer.deal("color", tuple((color, shaped) for color in COLORS for shaped in (0, 1)))
    if shaped:
        scene = scenes.new_scene(rng, split, rng.choice([other for other in COLORS if other != color]))
        count = rng.randint(1, 4)
        colors = [color, *scenes.shape_colors(scene, count - 1, avoid=[color])]
        kinds = scenes.shape_kinds(rng, count)
        boxes = scenes.scatter(rng, [rng.randint(52, 88) for _ in colors])
        scenes.draw_shapes(scene, list(zip(kinds, colors, strict=True)), boxes)
        return scene, questions.ask_shape_color(scene, scene.things[0])
    scene = scenes.new_scene(rng, split, color)
    count = rng.randint(1, 3)
    if rng.random() < 0.5:
        pairs = list(zip(scenes.shape_kinds(rng, count), scenes.shape_colors(scene, count), strict=True))
        scenes.draw_shapes(scene, pairs, scenes.scatter(rng, [rng.randint(52, 96) for _ in pairs]))
    else:
        _objects(scene, scenes.pick_names(scene, count))
    return scene, questions.ask_background(scene)


def _objects(scene: Scene, names: Sequence[str]) -> None:
    """Different objects, their longer sides 56-112 pixels, the more the smaller."""
    most = {1: 112, 2: 108, 3: 96}[len(names)]
    sides = [scene.rng.randint(56, most) for _ in names]
    scenes.draw_objects(scene, names, scenes.scatter(scene.rng, sides))


# Ways to give each of 1..5 another of 1..5, each once, with sums of at most 7.
PARTNERS = tuple(
    numbers
    for numbers in itertools.permutations((1, 2, 3, 4, 5))
    if all(count + number <= 7 for count, number in enumerate(numbers, 1))
)


def _count(rng: random.Random, split: Split, dealer: _Dealer) -> Drawn:
    count = dealer.deal("count", (1, 2, 3, 4, 5))
    scene = scenes.new_scene(rng, split)
    # Beside them, half the time: copies of something else, in numbers that are uniform too, so that
    # they can be asked about as well, and at most seven things in all.
    others = rng.choice(PARTNERS)[count - 1] if rng.random() < 0.5 else 0
    total = count + others
    side = rng.randint(54, 92 if total <= 3 else 66 if total <= 5 else 58)
    boxes = scenes.scatter(rng, [round(side * rng.uniform(0.92, 1.08)) for _ in range(total)])
    if rng.random() < 0.3:
        kind, other = scenes.shape_kinds(rng, 2)
        scene.subject = kind
        colors = [scenes.shape_colors(scene, 1)[0] for _ in boxes]
        kinds = [kind] * count + [other] * others
        scenes.draw_shapes(scene, list(zip(kinds, colors, strict=True)), boxes)
    else:
        name, other = scenes.pick_names(scene, 2, countable=True)
        scene.subject = name
        scenes.draw_objects(scene, [name] * count + [other] * others, boxes)
    return scene, questions.ask_count(scene, scene.subject, count)


def _exists(rng: random.Random, split: Split, dealer: _Dealer) -> Drawn:
    # Numbers 2j and 2j+1 ask for the same name, one yes and one no, in an order drawn by lot.
    pair = dealer.number // 2
    name = dealer.deal("exists", tuple(pack.nouns()), pair)
    yes_first = bool(_stream(dealer.seed, dealer.split, "coin", pair).getrandbits(1))
    present = yes_first == (dealer.number % 2 == 0)
    scene = scenes.background_for(rng, split, name)
    count = rng.randint(1, 3)
    others = scenes.pick_names(scene, count - present, avoid=[name])
    names = [*([name] if present else []), *others]
    rng.shuffle(names)
    _objects(scene, names)
    return scene, questions.ask_exists(scene, pack.nouns()[name].phrase, present)


def _position(rng: random.Random, split: Split, dealer: _Dealer) -> Drawn:
    # Four relations, then one "which is furthest".
    if dealer.number % 5 == 4:
        side = dealer.deal("furthest", ("left", "right"), dealer.number // 5)
        while True:
            scene = scenes.new_scene(rng, split)
            _objects(scene, scenes.pick_names(scene, 3))
            if thing := questions.furthest(scene, side):
                return scene, questions.ask_furthest(scene, side, thing)
    number = dealer.number // 5 * 4 + dealer.number % 5
    answer = dealer.deal("position", ("left", "right", "above", "below"), number)
    axis = "horizontal" if answer in ("left", "right") else "vertical"
    while True:
        scene = scenes.new_scene(rng, split)
        _objects(scene, scenes.pick_names(scene, rng.randint(2, 3)))
        first, second = rng.sample(scene.things, 2)
        side_there = questions.side_of(axis, first, second)
        if side_there:
            pair = (first, second) if side_there == answer else (second, first)
            return scene, questions.ask_position(scene, axis, *pair)


def _size(rng: random.Random, split: Split, dealer: _Dealer) -> Drawn:
    # Four comparisons, then one "which is the largest" of three.
    three = dealer.number % 5 == 4
    number = dealer.number // 5 * 4 + dealer.number % 5
    while True:
        scene = scenes.new_scene(rng, split)
        sides = [rng.randint(92, 108), rng.randint(50, 64)]
        if three or rng.random() < 0.3:
            sides.append(rng.randint(50, 64))
        names = scenes.pick_names(scene, len(sides))
        scenes.draw_objects(scene, names, scenes.scatter(rng, sides))
        big, *small = scene.things
        if not all(questions.clearly_larger(big, other) for other in small):
            continue
        if three:
            return scene, questions.ask_largest(scene, big)
        larger, first = dealer.deal("size", ((1, 1), (1, 0), (0, 1), (0, 0)), number)
        wanted, other = (big, small[0]) if larger else (small[0], big)
        pair = (wanted, other) if first else (other, wanted)
        return scene, questions.ask_size(scene, bool(larger), *pair)


def _read(rng: random.Random, split: Split, dealer: _Dealer) -> Drawn:
    word = dealer.deal("read", WORDS)
    scene = scenes.new_scene(rng, split)
    if rng.random() < 0.4:
        above = rng.random() < 0.5
        side = rng.randint(60, 96)
        top = rng.randint(10, 20) if above else scenes.SIZE - side - rng.randint(10, 20)
        left = rng.randint(scenes.MARGIN, scenes.SIZE - scenes.MARGIN - side)
        scenes.draw_objects(scene, scenes.pick_names(scene, 1), [(left, top, left + side, top + side)])
        scenes.draw_word(scene, word, *((top + side + 8, scenes.SIZE - 10) if above else (10, top - 8)))
    else:
        scenes.draw_word(scene, word, 16, scenes.SIZE - 16)
    return scene, questions.ask_read(scene, word)


def _chart(rng: random.Random, split: Split, dealer: _Dealer) -> Drawn:
    color, which = dealer.deal("chart", tuple((color, which) for color in COLORS for which in ("tallest", "shortest")))
    scene = scenes.new_scene(rng, split, rng.choice([other for other in COLORS if other != color]))
    count = rng.randint(3, 4)
    while True:  # neighbours in rank differ by one at least, the answers by two from the next
        values = sorted(rng.sample(range(1, 10), count))
        if values[1] - values[0] >= 2 and values[-1] - values[-2] >= 2:
            break
    answer = values.pop() if which == "tallest" else values.pop(0)
    colors = scenes.shape_colors(scene, count - 1, avoid=[color])
    bars = [(color, answer), *zip(colors, values, strict=True)]
    rng.shuffle(bars)
    scenes.draw_chart(scene, bars)
    return scene, questions.ask_chart(scene, which)


DRAW: dict[str, Callable[[random.Random, Split, _Dealer], Drawn]] = {
    "name": _name,
    "color": _color,
    "count": _count,
    "exists": _exists,
    "position": _position,
    "size": _size,
    "read": _read,
    "chart": _chart,
}

MORE: dict[str, Callable[[Scene], list[Question]]] = {
    "exists": questions.more_exists,
    "name": questions.more_name,
    "position": questions.more_position,
    "size": questions.more_size,
    "color": questions.more_color,
    "chart": questions.more_chart,
    "count": questions.more_count,
}


def _converse(scene: Scene, first: Question) -> tuple[Conversation, ...]:
    """Two or three conversations: the scheduled question with more turns of its task, then other tasks."""
    rng = scene.rng
    follow = [turn for turn in MORE[first.task](scene) if _new(turn, first)] if first.task in MORE else []
    talks: list[tuple[str, list[Question]]] = [(first.task, [first, *follow[:4]])]
    found = {task: more(scene) for task, more in MORE.items() if task != first.task}
    left = {task: turns for task, turns in found.items() if turns}
    for _ in range(1 + (rng.random() < 0.1)):
        if left:
            task = rng.choices(list(left), [EXTRA_WEIGHTS[task] for task in left])[0]
            talks.append((task, left.pop(task)))
    return tuple(Conversation(task, tuple(turns), rng.random() < scene.split.suffix) for task, turns in talks)


def _new(turn: Question, first: Question) -> bool:
    """Whether a further turn asks something else than the first: same kind of question about the same
    things would repeat it or give its answer away."""
    if turn.task in ("chart", "color", "name"):
        return turn.answer != first.answer
    if turn.task == "count":
        return True
    mentioned = [name for name in turn.question.rstrip("?").replace(",", "").split() if name in pack.nouns()]
    return not mentioned or any(name not in first.question for name in mentioned)


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
    rng = _stream(seed, split, index, attempt)
    scene, first = DRAW[task](rng, SPLITS[split], _Dealer(seed, split, number))
    alone = (Conversation(task, (first,), False),)
    talks = _converse(scene, first) if SPLITS[split].conversations else alone
    return ProbeSample(scene.image, scene.cells(), talks)


# --- files ---------------------------------------------------------------------------------------


def image_name(index: int) -> str:
    """Path of a picture inside the folder of a split."""
    return f"images/{index:06d}.png"


def picture_hash(image: Image.Image) -> str:
    """SHA-256 of the pixels."""
    return hashlib.sha256(image.tobytes()).hexdigest()


def _write(job: tuple[str, int, int, int, str]) -> tuple[str, list[str], tuple[Conversation, ...]]:
    """Draw one picture and save it; returns its hash, cells and conversations."""
    split, index, seed, attempt, folder = job
    made = sample(split, index, seed, attempt)
    made.image.save(Path(folder, image_name(index)), compress_level=4)
    return picture_hash(made.image), made.cells, made.conversations


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
    val; ``questions.json`` (one question per picture) for val, test and unseen. The files depend on
    (split, count, seed) only. ``out`` appears complete or not at all. Raises ``UserError`` for an
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
        seen: set[str] = set()
        jobs = [(split, index, seed, 0, str(staging)) for index in range(count)]
        with _mapper(workers) as mapper:
            results = mapper(_write, jobs)
            for index, result in enumerate(tqdm(results, total=count, desc=split, unit=" pictures")):
                attempt = 0
                while result[0] in seen:
                    attempt += 1
                    result = _write((split, index, seed, attempt, str(staging)))
                digest, words, talks = result
                seen.add(digest)
                cells[image_name(index)] = words
                records += _records(split, index, talks)
                asked.append(_asked(split, index, talks[0].turns[0]))
        _dump(staging / "cells.json", cells)
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
    }


def _dump(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

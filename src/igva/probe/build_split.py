"""Writes a split to files: pictures, questions or conversations, and the words of their cells."""

import contextlib
import dataclasses
import hashlib
import json
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from igva.errors import UserError
from igva.files import result_folder
from igva.probe.edition import scheduled, split_of
from igva.probe.suite import Conversation, ProbeSample, sample
from igva.probe.task_base import Question
from igva.probe.tasks import category_of, task_of


def image_name(index: int) -> str:
    """Path of a picture inside the folder of a split."""
    return f"images/{index:06d}.png"


def picture_hash(image: Image.Image) -> str:
    """SHA-256 of the pixels."""
    return hashlib.sha256(image.tobytes()).hexdigest()


@dataclasses.dataclass(frozen=True)
class _Job:
    """One picture to draw and save."""

    split: str
    index: int
    seed: int
    tasks: tuple[str, ...]
    folder: Path
    attempt: int = 0


def _write(job: _Job) -> tuple[str, ProbeSample]:
    """Draw one picture and save it; returns its hash, and what is known of it without the picture itself."""
    drawn = sample(job.split, job.index, job.seed, job.attempt, job.tasks)
    drawn.image.save(job.folder / image_name(job.index), compress_level=4)
    return picture_hash(drawn.image), dataclasses.replace(drawn, image=Image.new("RGB", (1, 1)))


@contextlib.contextmanager
def _mapper(workers: int) -> Iterator[Callable[..., Iterator[Any]]]:
    """``map``, or an ordered map over worker processes."""
    if workers == 1:
        yield map
        return
    # Spawned, not forked: the caller may hold threads (torch), which a fork would deadlock.
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        yield lambda function, jobs: pool.imap(function, jobs, chunksize=16)


def build(split: str, out: Path, count: int, seed: int = 0, workers: int = 1, tasks: Sequence[str] = ()) -> Path:
    """Write ``count`` pictures of a split with their questions into the folder ``out``; returns it.

    ``images/``, ``cells.json`` (path -> 64 words); ``data.json`` (LLaVA conversations) for train and
    val; ``photos.json`` (path -> the cells that show a photograph) for train; ``questions.json`` (one
    question per picture) for val, test and unseen. The files depend on (split, count, seed, tasks) only.
    ``out`` appears complete or not at all.

    Args:
        tasks: draw for these alone, by turns; () is what is published (see ``igva.probe.edition``). A task that was
            registered in this process alone is unknown to further ``workers``: an entry point makes it known to all.

    Raises:
        UserError: an unknown split or task, a count or number of workers below 1, or an ``out`` that exists and is not
            empty.
    """
    from tqdm import tqdm

    out, tasks = Path(out), tuple(tasks)
    spec = split_of(split)
    for name in tasks:
        task_of(name)
    if count < 1:
        raise UserError(f"count is {count}; ask for at least 1 picture")
    if workers < 1:
        raise UserError(f"workers is {workers}; use at least 1")
    with result_folder(out) as staging:
        (staging / "images").mkdir()
        records: list[dict[str, Any]] = []
        questions: list[dict[str, Any]] = []
        cells: dict[str, list[str]] = {}
        photos: dict[str, dict[str, list[int]]] = {}
        seen: set[str] = set()
        jobs = [_Job(split, index, seed, tasks, staging) for index in range(count)]
        with _mapper(workers) as mapper:
            results = mapper(_write, jobs)
            for job, result in zip(jobs, tqdm(results, total=count, desc=split, unit=" pictures"), strict=True):
                while result[0] in seen:
                    job = dataclasses.replace(job, attempt=job.attempt + 1)
                    result = _write(job)
                digest, drawn = result
                seen.add(digest)
                image, name = image_name(job.index), _name(job)
                cells[image] = drawn.cells
                if drawn.photo_cells:
                    photos[image] = {"cells": list(drawn.photo_cells)}
                records += _records(name, image, drawn.conversations)
                questions.append(_entry(name, image, drawn.conversations[0].turns[0]))
        _dump(staging / "cells.json", cells)
        if spec.varied:
            _dump(staging / "photos.json", photos)
        if spec.conversations:
            _dump(staging / "data.json", records)
        if split != "train":
            _dump(staging / "questions.json", questions)
    return out


def _name(job: _Job) -> str:
    """What the ids of a picture's questions begin with: different wherever the pictures are of different tasks."""
    if not job.tasks:
        return f"{job.split}-{job.index:06d}"
    task, number = scheduled(job.tasks, job.index)
    return f"{job.split}-{task}-{number:06d}"


def _records(name: str, image: str, talks: Sequence[Conversation]) -> list[dict[str, Any]]:
    return [
        {
            "id": f"{name}-{number}",
            "image": image,
            "conversations": talk.messages(),
            "task": talk.task,
            "category": category_of(talk.task),
            "choices": [list(turn.choices) for turn in talk.turns],
            **({"imagined": talk.imagined.record()} if talk.imagined else {}),
        }
        for number, talk in enumerate(talks)
    ]


def _entry(name: str, image: str, question: Question) -> dict[str, Any]:
    return {
        "id": name,
        "image": image,
        "question": question.question,
        "answer": question.answer,
        "choices": list(question.choices),
        "task": question.task,
        "category": category_of(question.task),
    }


def _dump(path: Path, data: Any) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False, indent=1) + "\n", encoding="utf-8")

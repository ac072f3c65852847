"""Ask a model every question of a file, keep its raw answers, and score them per task."""

from __future__ import annotations

import json
import re
import string
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from igva.data.images import open_image
from igva.errors import UserError
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor

PREDICTIONS = "predictions.jsonl"
SCORES = "scores.json"


@dataclass(frozen=True)
class Question:
    """One evaluation question with its closed list of answers."""

    id: str
    image: Path
    question: str
    answer: str
    choices: tuple[str, ...]
    task: str


def read_questions(path: Path) -> list[Question]:
    """Read a ``questions.json`` as ``igva probe build`` writes it.

    Raises:
        UserError: missing or malformed; the message names the entry.
    """
    if not path.is_file():
        raise UserError(f"{path} does not exist: make it with `igva probe build --split test`")
    try:
        entries = json.loads(path.read_text())
        return [
            Question(
                str(entry["id"]),
                path.parent / entry["image"],
                entry["question"],
                entry["answer"],
                tuple(entry["choices"]),
                entry["task"],
            )
            for entry in entries
        ]
    except json.JSONDecodeError as error:
        raise UserError(f"{path}, line {error.lineno}: not valid JSON ({error.msg})") from error
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{path}: an entry lacks {error}; id, image, question, answer, choices, task are needed"
        ) from error


def normalise(text: str) -> str:
    """Lower case, without punctuation and articles: how an answer is compared."""
    text = text.lower().translate(str.maketrans("", "", string.punctuation))
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", text).split())


def is_right(prediction: str, answer: str) -> bool:
    """Whether the whole normalised answer is the expected one."""
    return normalise(prediction) == normalise(answer)


def evaluate(
    model: IgvaForConditionalGeneration,
    processor: IgvaProcessor,
    questions: Sequence[Question],
    out: Path,
    *,
    batch_size: int = 16,
    max_new_tokens: int = 8,
    zero_images: bool = False,
) -> dict[str, Any]:
    """Ask all questions; go on where an earlier call into the same folder stopped.

    Args:
        zero_images: give the model zeros in place of every picture's features: how a blind control is asked.

    Returns:
        The scores, as written to ``scores.json``.
    """
    out.mkdir(parents=True, exist_ok=True)
    file = out / PREDICTIONS
    done = _read_predictions(file)
    todo = [question for question in questions if question.id not in done]
    with file.open("a") as sink, tqdm(total=len(questions), initial=len(done), desc="questions") as bar:
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            for question, text in zip(batch, _ask(model, processor, batch, max_new_tokens, zero_images), strict=True):
                done[question.id] = text
                sink.write(json.dumps({"id": question.id, "task": question.task, "prediction": text}) + "\n")
            sink.flush()
            bar.update(len(batch))
    scores = score(questions, done)
    (out / SCORES).write_text(json.dumps(scores, indent=2) + "\n")
    return scores


def _read_predictions(file: Path) -> dict[str, str]:
    if not file.is_file():
        return {}
    done = {}
    for line in file.read_text().splitlines():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed
            continue
        done[entry["id"]] = entry["prediction"]
    return done


@torch.inference_mode()
def _ask(
    model: IgvaForConditionalGeneration,
    processor: IgvaProcessor,
    batch: Sequence[Question],
    max_new_tokens: int,
    zero_images: bool,
) -> list[str]:
    chats = [
        [
            {
                "role": "user",
                "content": [
                    {"type": "image", "image": open_image(q.image)},
                    {"type": "text", "text": q.question},
                ],
            }
        ]
        for q in batch
    ]
    inputs = processor.apply_chat_template(
        chats, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True, padding=True
    ).to(model.device)
    if zero_images:
        layers = model.model.encode_image_layers(inputs.pop("pixel_values"))
        inputs["layer_patches"] = torch.zeros_like(layers.patches)
        inputs["layer_descriptors"] = torch.zeros_like(layers.descriptors)
    ids = model.generate(**inputs, max_new_tokens=max_new_tokens)
    texts: list[str] = processor.tokenizer.batch_decode(
        ids[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True
    )
    return [text.strip() for text in texts]


def score(questions: Sequence[Question], predictions: dict[str, str]) -> dict[str, Any]:
    """Accuracy per task and its mean over the tasks, in percent, with chance (1 / choices) beside it."""
    right: dict[str, list[bool]] = defaultdict(list)
    chance: dict[str, list[float]] = defaultdict(list)
    for question in questions:
        right[question.task].append(is_right(predictions[question.id], question.answer))
        chance[question.task].append(1 / len(question.choices))
    tasks = {
        task: {
            "accuracy": round(100 * sum(hits) / len(hits), 1),
            "chance": round(100 * sum(chance[task]) / len(hits), 1),
            "questions": len(hits),
        }
        for task, hits in sorted(right.items())
    }
    mean = sum(entry["accuracy"] for entry in tasks.values()) / len(tasks)
    return {"mean": round(mean, 1), "tasks": tasks, "metric": "exact match of the normalised answer"}

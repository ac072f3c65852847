"""Ask a model every question, keep its raw answers, and score them; a run that was stopped goes on."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from tqdm import tqdm

from igva.answering import answer_chats, user_turn
from igva.data.images import image_bytes, open_image
from igva.data.questions import Question
from igva.eval.metrics import METRICS, Graded, check_questions
from igva.eval.scoring import grade_all, summarise
from igva.files import write_errors, write_json
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.resume import Journal, claim
from igva.versions import versions

PREDICTIONS, SCORES, SETTINGS = "predictions.jsonl", "scores.json", "settings.json"
# Fields of a configuration, at any depth, that say where a model lies and how it runs, not what it answers.
_OUTWARD = ("_name_or_path", "name_or_path", "transformers_version", "dtype", "torch_dtype", "architectures")
# What an answer depends on. The other settings are told, not compared: a model may be moved, a batch made smaller.
_BINDING = ("fingerprint", "processor", "questions", "max_new_tokens", "dtype", "zero_images", "prompt", "versions")


def evaluate(
    model: IgvaForConditionalGeneration,
    processor: IgvaProcessor,
    questions: Sequence[Question],
    out: Path,
    *,
    batch_size: int = 16,
    max_new_tokens: int = 16,
    zero_images: bool = False,
) -> dict[str, Any]:
    """Ask all questions; go on where an earlier call into the same folder stopped.

    Writes ``settings.json`` (first), ``predictions.jsonl`` (as the answers come) and ``scores.json`` (last). Batches
    are the same in a run that goes on as in one that was never stopped, and so are the scores.

    Args:
        zero_images: give the model zeros in place of every picture's features: how a blind control is asked.

    Returns:
        The scores, as written to ``scores.json``: what ``scoring.summarise`` gives, ``prompt`` (the first question as
        the language model sees it), ``metrics`` (name → what it says) and ``settings``.

    Raises:
        UserError: a question cannot be scored, a picture is missing, the folder holds answers given under other
            settings, or it cannot be written.
    """
    check_questions(questions)
    settings = _settings(model, processor, questions, batch_size, max_new_tokens, zero_images)
    journal = Journal(out / PREDICTIONS)
    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        claim(out / SETTINGS, settings, journal.file, _BINDING)
        done = _predictions(journal, questions)
        journal.replace(map(_entry, grade_all([q for q in questions if q.id in done], done)))
        with journal.adding() as add, tqdm(total=len(questions), desc="questions") as bar:
            for start in range(0, len(questions), batch_size):
                batch = questions[start : start + batch_size]
                if not all(question.id in done for question in batch):
                    chats = [chat_of(question, open_image(question.image)) for question in batch]
                    texts = answer_chats(model, processor, chats, max_new_tokens, zero_images)
                    fresh = {question.id: text for question, text in zip(batch, texts, strict=True)}
                    done |= fresh
                    for graded in grade_all(batch, fresh):
                        add(_entry(graded))
                bar.update(len(batch))
        answers = grade_all(questions, done)
        journal.replace(map(_entry, answers))
        scores = {
            **summarise(answers),
            "prompt": settings["prompt"],
            "metrics": {name: METRICS[name].summary for name in sorted({q.metric for q in questions})},
            "settings": settings,
        }
        write_json(out / SCORES, scores)
    return scores


def read_graded(out: Path, questions: Sequence[Question]) -> list[Graded]:
    """The answers of an evaluation of these questions that has ended, with their scores."""
    return grade_all(questions, _predictions(Journal(out / PREDICTIONS), questions))


def prompt_of(processor: IgvaProcessor, question: Question) -> str:
    """A question as the language model sees it, one placeholder for the picture."""
    text: str = processor.apply_chat_template(chat_of(question), add_generation_prompt=True)
    return text


def chat_of(question: Question, image: Image.Image | None = None) -> list[dict[str, Any]]:
    """The chat that asks a question: the picture, then the words."""
    return [user_turn(question.question, [image])]


# --- what the answers depend on -----------------------------------------------------------------------------------


def _settings(
    model: IgvaForConditionalGeneration,
    processor: IgvaProcessor,
    questions: Sequence[Question],
    batch_size: int,
    max_new_tokens: int,
    zero_images: bool,
) -> dict[str, Any]:
    return {
        "checkpoint": str(model.config.name_or_path),
        "fingerprint": fingerprint(model),
        "processor": hashlib.sha256(processor.image_processor.to_json_string().encode()).hexdigest()[:16],
        "questions": question_hash(questions),
        "max_new_tokens": max_new_tokens,
        "dtype": str(model.dtype).removeprefix("torch."),
        "device": str(model.device),
        "batch_size": batch_size,
        "zero_images": zero_images,
        "prompt": prompt_of(processor, questions[0]),
        "versions": versions(),
    }


def fingerprint(model: torch.nn.Module) -> str:
    """A short hash of some 256 numbers of every weight, and of how the model uses them.

    Another checkpoint under the same path is another model; so are the same weights that read another layer.
    """
    digest = hashlib.sha256()
    config = getattr(model, "config", None)
    digest.update(json.dumps(_inward(config.to_dict() if config else {}), sort_keys=True, default=str).encode())
    for name, value in sorted(model.state_dict().items()):
        digest.update(f"{name} {tuple(value.shape)}".encode())
        flat = value.detach().reshape(-1)
        sample = flat[:: max(1, flat.numel() // 256)].cpu().contiguous()
        digest.update(sample.view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()[:16]


def _inward(settings: Any) -> Any:
    if isinstance(settings, dict):
        return {str(key): _inward(value) for key, value in settings.items() if key not in _OUTWARD}
    return [_inward(value) for value in settings] if isinstance(settings, (list, tuple)) else settings


def question_hash(questions: Sequence[Question]) -> str:
    """A short hash of the questions and their pictures, wherever the folder stands.

    Raises:
        UserError: a picture is missing.
    """
    digest = hashlib.sha256()
    for question in questions:
        fields = {**vars(question), "image": hashlib.sha256(image_bytes(question.image)).hexdigest()}
        digest.update(json.dumps(fields, sort_keys=True).encode())
    return digest.hexdigest()[:16]


# --- predictions.jsonl ----------------------------------------------------------------------------------------------


def _entry(one: Graded) -> dict[str, Any]:
    return {
        "id": one.question.id,
        "task": one.question.task,
        "category": one.question.category,
        "question": one.question.question,
        "references": list(one.question.references),
        "prediction": one.prediction,
        "score": one.value,
    }


def _predictions(journal: Journal, questions: Sequence[Question]) -> dict[str, str]:
    """Question id → words."""
    wanted = {question.id for question in questions}
    return {
        entry["id"]: str(entry["prediction"])
        for entry in journal.entries()
        if entry.get("id") in wanted and "prediction" in entry
    }

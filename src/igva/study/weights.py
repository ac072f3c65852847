"""``igva study weights``: how a model weighs its layer groups, for which questions, and what moves the weights.

Letters: ``n`` questions, ``K`` layer groups, ``E`` instruction width.
"""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor
from tqdm import tqdm

from igva.data.images import ImageSource, open_image
from igva.data.questions import Question
from igva.errors import UserError
from igva.files import write_errors, write_file
from igva.layer_names import group_names
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor, instruction_text
from igva.resume import claim
from igva.study.counterfactuals import (
    answer_all,
    answers_changed_table,
    check_forcible,
    describe_effects,
    draw_effects,
    effects,
    effects_table,
    score_answers,
)
from igva.study.question_kinds import cluster_names, k_means, question_type
from igva.study.report import Figure, write_report
from igva.study.trials import SETTINGS
from igva.study.weights_results import (
    KINDS,
    OTHER_PICTURE,
    OTHER_TASK,
    SAME_TASK,
    entropy,
    explained_variances,
    findings,
    mean_moves,
    moves_by_task_table,
    moves_table,
    sort_weights,
    variance_table,
    weights_figures,
    weights_table,
)
from igva.train.feature_cache import InstructionCache
from igva.train.guidance import total_variation

Pair = tuple[ImageSource, str]
T = TypeVar("T")


def study_weights(
    model: IgvaForConditionalGeneration,
    processor: IgvaProcessor,
    questions: Sequence[Question],
    out: Path,
    *,
    clusters: int = 8,
    counterfactuals: bool = False,
    batch_size: int = 16,
    max_new_tokens: int = 16,
    settings: dict[str, Any],
) -> Path:
    """Weigh, sort, exchange and, if wanted, ask; returns the report's path.

    Args:
        clusters: of questions by their sentence vectors, at most.
        counterfactuals: also have the language model answer under other weights; the rest needs no language model.
        settings: what the study was run with; a folder begun with others is refused.

    Raises:
        UserError: the fusion has no weights, a picture cannot be read, or the folder is another study's.
    """
    groups = group_names(model)
    if counterfactuals:
        check_forcible(model)
    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        claim(out / SETTINGS, settings, out)
    weighed = weigh_exchanged(model, processor, questions, batch_size)
    labels = sort_questions(model, processor, questions, clusters)
    sortings = {kind: sort_weights(kind, values, weighed.weights, groups) for kind, values in labels.items()}
    explained = explained_variances(weighed.weights, labels)
    moves = mean_moves(weighed.moved)
    summary = findings(sortings["category"], explained, moves, groups)
    tables = [
        *(weights_table(sorting, groups) for sorting in sortings.values()),
        variance_table(explained),
        moves_table(moves),
        moves_by_task_table(questions, weighed.distance),
    ]
    figures = weights_figures(sortings, weighed.weights, groups)
    if counterfactuals:
        answers = answer_all(
            model,
            processor,
            questions,
            weighed.others,
            weighed.weights.mean(dim=0),
            out,
            batch_size=batch_size,
            max_new_tokens=max_new_tokens,
        )
        runs = score_answers(questions, answers)
        changes = effects(questions, runs)
        summary += describe_effects(changes)
        tables += [effects_table(changes), answers_changed_table(questions, runs)]
        note = "Points right of the line: better with other weights. Filled: beyond chance after correction."
        figures.append(Figure("counterfactuals", "Accuracy with other weights", draw_effects(changes), note))
    _write_rows(out / "weights.jsonl", questions, labels, weighed.weights)
    return write_report(
        out, title="How the layers are weighed", summary=summary, tables=tables, figures=figures, settings=settings
    )


# --- the weights of a model ------------------------------------------------------------------------------------------


def sentence_vectors(
    model: IgvaForConditionalGeneration, processor: IgvaProcessor, questions: Sequence[str]
) -> Tensor | None:
    """The instruction vector of each question, ``(n, E)``; None where the model has no sentence encoder."""
    if model.model.instruction_encoder is None:
        return None
    cache = InstructionCache(model, processor)
    turns = [[text] if (text := instruction_text(question, processor.image_token)) else [] for question in questions]
    cache.fill(text for turn in turns for text in turn)
    return torch.stack([cache(turn) for turn in turns])


@torch.inference_mode()
def weigh(
    model: IgvaForConditionalGeneration,
    processor: IgvaProcessor,
    pairs: Sequence[tuple[ImageSource, str]],
    batch_size: int = 16,
    desc: str = "weights",
) -> Tensor:
    """The weight of each layer group for pictures and questions, ``(n, K)``; no language model runs.

    The tower runs once per picture, however many questions are about it. Per-patch weights are averaged.

    Raises:
        UserError: a picture cannot be read, or the fusion has no weights or needs a sentence encoder that is missing.
    """
    vectors = sentence_vectors(model, processor, [question for _, question in pairs])
    if vectors is None and model.model.fusion.needs_instruction:
        raise UserError("the model was saved without a sentence encoder: its weights need one")
    by_image: dict[ImageSource, list[int]] = {}
    for index, (image, _) in enumerate(pairs):
        by_image.setdefault(image, []).append(index)
    weights = torch.zeros(len(pairs), len(group_names(model)))
    images = list(by_image)
    with tqdm(total=len(pairs), desc=desc, unit="question") as bar:
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            pixels = processor.prepare_images([open_image(image) for image in batch])
            layers = model.model.encode_image_layers(pixels.to(model.device))
            asked = [(row, index) for row, image in enumerate(batch) for index in by_image[image]]
            for first in range(0, len(asked), batch_size):
                rows, indices = (list(part) for part in zip(*asked[first : first + batch_size], strict=True))
                features = model.get_image_features(
                    layer_patches=layers.patches[rows],
                    layer_descriptors=layers.descriptors[rows],
                    instruction_embeds=None if vectors is None else vectors[indices],
                )
                if features.fusion_weights is None:
                    raise UserError(f"fusion {model.config.fusion!r} gives no layer weights")
                given = features.fusion_weights.float().cpu()
                weights[indices] = given.mean(dim=1) if given.dim() == 3 else given
                bar.update(len(indices))
    return weights


# --- question or picture exchanged -----------------------------------------------------------------------------------


def swaps(questions: Sequence[Question], seed: int = 0) -> dict[str, list[Pair | None]]:
    """For each kind and question the picture and question it is exchanged for; None where there is none.

    A question of another task is taken from the same picture's where the file has one, else from all of the file.
    """
    rng = random.Random(seed)
    here: dict[ImageSource, list[Question]] = defaultdict(list)
    texts: dict[str, set[str]] = defaultdict(set)
    for question in questions:
        here[question.image].append(question)
        texts[question.task].add(question.question)
    images = list(here)
    everything = {task: sorted(own) for task, own in sorted(texts.items())}
    partners: dict[str, list[Pair | None]] = {kind: [] for kind in KINDS}
    for question in questions:
        beside = [q.question for q in here[question.image] if q.task != question.task]
        other_tasks = [task for task in everything if task != question.task]
        elsewhere = rng.choice(everything[rng.choice(other_tasks)]) if other_tasks else None
        partners[OTHER_TASK].append(_pair(question.image, rng.choice(beside) if beside else elsewhere))
        partners[SAME_TASK].append(_pair(question.image, _another(question.question, everything[question.task], rng)))
        partners[OTHER_PICTURE].append(_other_picture(question, images, rng))
    return partners


def _pair(image: ImageSource, text: str | None) -> Pair | None:
    return None if text is None else (image, text)


def _other_picture(question: Question, images: Sequence[ImageSource], rng: random.Random) -> Pair | None:
    image = _another(question.image, images, rng)
    return None if image is None else (image, question.question)


def _another(own: T, among: Sequence[T], rng: random.Random) -> T | None:
    """A random one of ``among``, all different, that is not ``own``, which is one of them; None where it is alone."""
    if len(among) < 2:
        return None
    drawn = among[rng.randrange(len(among) - 1)]
    return among[-1] if drawn == own else drawn  # the own one stands for the last


@dataclass(frozen=True)
class Weighed:
    """What the fusion gave.

    Attributes:
        weights: ``(n, K)``, one row per question.
        moved: kind of exchange → weights before and after, ``(pairs, K)`` each.
        others: question id → the question of another task it was exchanged for.
        distance: question id → how far that moved its weights.
    """

    weights: Tensor
    moved: dict[str, tuple[Tensor, Tensor]]
    others: dict[str, str]
    distance: dict[str, float]


def weigh_exchanged(
    model: IgvaForConditionalGeneration, processor: IgvaProcessor, questions: Sequence[Question], batch_size: int
) -> Weighed:
    """The weights of every question, and with question or picture exchanged; the tower runs once per picture."""
    partners = swaps(questions)
    own = [(question.image, question.question) for question in questions]
    pairs = own + [pair for kind in KINDS for pair in partners[kind] if pair is not None]
    weights = weigh(model, processor, pairs, batch_size)
    moved: dict[str, tuple[Tensor, Tensor]] = {}
    start = len(own)
    for kind in KINDS:
        rows = [row for row, pair in enumerate(partners[kind]) if pair is not None]
        moved[kind] = (weights[rows], weights[start : start + len(rows)])
        start += len(rows)
    known = [(q.id, pair[1]) for q, pair in zip(questions, partners[OTHER_TASK], strict=True) if pair is not None]
    distances = total_variation(*moved[OTHER_TASK]).tolist()
    return Weighed(
        weights=weights[: len(own)],
        moved=moved,
        others=dict(known),
        distance={name: far for (name, _), far in zip(known, distances, strict=True)},
    )


def sort_questions(
    model: IgvaForConditionalGeneration, processor: IgvaProcessor, questions: Sequence[Question], clusters: int
) -> dict[str, list[str]]:
    """Ways to sort the questions, each with a label per question: category, task, type, cluster of words."""
    labels = {
        "category": [question.category for question in questions],
        "task": [question.task for question in questions],
        "question type": [question_type(question.question) for question in questions],
    }
    texts = sorted({instruction_text(question.question, processor.image_token) for question in questions})
    vectors = sentence_vectors(model, processor, texts)
    if vectors is None:
        return labels
    numbers = k_means(vectors.double().cpu().numpy(), clusters).tolist()
    names = cluster_names(texts, numbers)
    width = len(str(len(names)))
    cluster = {text: f"{n + 1:0{width}}: {names[n]}" for text, n in zip(texts, numbers, strict=True)}
    labels["cluster"] = [cluster[instruction_text(q.question, processor.image_token)] for q in questions]
    return labels


def _write_rows(
    path: Path, questions: Sequence[Question], labels: Mapping[str, Sequence[str]], weights: Tensor
) -> None:
    """A line per question, for whoever wants to look further."""
    lines = []
    entropies = entropy(weights).tolist()
    for row, question in enumerate(questions):
        entry = {"id": question.id, "question": question.question}
        entry |= {kind: values[row] for kind, values in labels.items()}
        numbers = {"weights": [round(v, 6) for v in weights[row].tolist()], "entropy": round(entropies[row], 6)}
        lines.append(json.dumps(entry | numbers, ensure_ascii=False))
    with write_errors(path):
        write_file(path, ("\n".join(lines) + "\n").encode())

"""``igva study weights``: how a trained model spreads its weight over the layers, and whether that matters."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import Tensor

from igva.checkpoints.store import write_errors
from igva.eval.questions import Question
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor, instruction_text
from igva.study.claims import claim
from igva.study.clusters import cluster_names, k_means
from igva.study.counterfactuals import answer_all, score_answers
from igva.study.question_types import RULE, question_type
from igva.study.report import Figure, Table, write_file, write_report
from igva.study.swaps import KINDS, OTHER_TASK, swaps
from igva.study.weights import check_forcible, entropy, group_names, sentence_vectors, total_variation, weigh
from igva.study.weights_figures import draw_changes, draw_entropy, draw_heatmaps, draw_shares
from igva.study.weights_findings import findings
from igva.study.weights_tables import (
    answers_changed_table,
    counterfactual_table,
    swap_by_task_table,
    swap_table,
    variance_table,
    weights_table,
)


@dataclass(frozen=True)
class Weighed:
    """What the allocator gave.

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
    claim(out, settings)
    found = weigh_exchanged(model, processor, questions, batch_size)
    labels = sort_questions(model, processor, questions, clusters)
    tables = _weight_tables(labels, found.weights, groups)
    variance, swapped = variance_table(found.weights, labels), swap_table(found.moved)
    figures = _figures(tables, found.weights, groups)
    more: list[Table] = []
    changes = None
    if counterfactuals:
        answers = answer_all(
            model, processor, questions, found.others, out, batch_size=batch_size, max_new_tokens=max_new_tokens
        )
        table, changes = counterfactual_table(questions, score_answers(questions, answers))
        more = [table, answers_changed_table(questions, answers)]
        note = "Points right of the line: better with other weights. Filled: beyond chance after correction."
        figures.append(Figure("counterfactuals", "Accuracy with other weights", draw_changes(changes), note))
    _write_rows(out / "weights.jsonl", questions, labels, found.weights)
    return write_report(
        out,
        title="How the layers are weighed",
        summary=findings(tables, variance, swapped, changes, groups),
        tables=[
            *tables.values(),
            variance,
            swapped,
            swap_by_task_table(questions, found.distance, OTHER_TASK),
            *more,
        ],
        figures=figures,
        settings=settings,
    )


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
    numbers = k_means(vectors.cpu(), min(clusters, len(texts))).tolist()
    names = cluster_names(texts, numbers)
    width = len(str(len(names)))
    cluster = {text: f"{n + 1:0{width}}: {names[n]}" for text, n in zip(texts, numbers, strict=True)}
    labels["cluster"] = [cluster[instruction_text(q.question, processor.image_token)] for q in questions]
    return labels


_KINDS = {
    "category": ("by_category", "By category", ""),
    "task": ("by_task", "By task", ""),
    "question type": ("by_question_type", "By question type", RULE),
    "cluster": (
        "by_cluster",
        "By cluster of words",
        "Clusters: k-means of the questions' sentence vectors, named by the words most typical of each (tf-idf).",
    ),
}


def _weight_tables(labels: Mapping[str, Sequence[str]], weights: Tensor, groups: Sequence[str]) -> dict[str, Table]:
    return {
        kind: weights_table(name, title, kind, labels[kind], weights, groups, note)
        for kind, (name, title, note) in _KINDS.items()
        if kind in labels
    }


def _figures(tables: Mapping[str, Table], weights: Tensor, groups: Sequence[str]) -> list[Figure]:
    figures = [
        Figure("weights_by_category", "Weight per layer group, by category", draw_shares(tables["category"], groups)),
        Figure("weights_by_task", "Weight per layer group, by task", draw_heatmaps([tables["task"]], groups)),
    ]
    words = [tables[kind] for kind in ("question type", "cluster") if kind in tables]
    figures.append(Figure("weights_by_words", "Weight per layer group, by words", draw_heatmaps(words, groups)))
    if len(groups) > 1:
        figures.append(
            Figure("entropy", "How evenly the groups are weighed", draw_entropy(entropy(weights), len(groups)))
        )
    return figures


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

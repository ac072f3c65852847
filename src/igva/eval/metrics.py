"""The metric table: how one answer is scored, and what is computed over all answers of a task besides their mean."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from igva.data.questions import Question, item_of
from igva.errors import UserError
from igva.eval import normalise, parsing
from igva.eval.boxes import to_pixels, union_share

ANLS_THRESHOLD = 0.5  # Biten et al. 2019
BOX_THRESHOLD = 0.5  # Yu et al. 2016
RELAXED_TOLERANCE = 0.05  # Masry et al. 2022


@dataclass(frozen=True)
class Graded:
    """A question, its answer, and the answer's score in 0..1; None where the answer could not be parsed."""

    question: Question
    prediction: str
    score: float | None

    @property
    def value(self) -> float:
        return self.score or 0.0


@dataclass(frozen=True)
class Metric:
    """One way to score answers.

    Attributes:
        summary: one line for tables.
        grade: the score of an answer in 0..1, or None where nothing can be parsed from it.
        source: whose metric it is; empty for the package's own.
        figures: named figures over all answers of a task, besides the mean of their scores.
        closed: how many answers there are where the metric fixes that (yes and no), for the chance level.
        whole_groups: a group of questions is one item, right only where all of them are.
    """

    summary: str
    grade: Callable[[Question, str], float | None]
    source: str = ""
    figures: Callable[[Sequence[Graded]], dict[str, float]] | None = None
    closed: int | None = None
    whole_groups: bool = False

    def score_one(self, question: Question, prediction: str) -> float | None:
        """The score of an answer in 0..1; None where it cannot be parsed, which counts as wrong."""
        return self.grade(question, prediction) if prediction.strip() else None

    def units(self, graded: Sequence[Graded]) -> list[float]:
        """The scores of the independent items: of the questions, or of the groups that are right as a whole."""
        if not self.whole_groups:
            return [one.value for one in graded]
        return [min(values) for values in _by_item(graded)]

    def chance(self, graded: Sequence[Graded]) -> float | None:
        """The expected score of guessing among the choices; None where a question is open."""
        guesses = [
            Graded(one.question, "", 1 / count) for one in graded if (count := len(one.question.choices) or self.closed)
        ]
        if len(guesses) < len(graded):
            return None
        items = _by_item(guesses) if self.whole_groups else [[guess.value] for guess in guesses]
        return math.fsum(map(math.prod, items)) / len(items)


def _by_item(graded: Sequence[Graded]) -> list[list[float]]:
    """The scores of each item's variants."""
    items: dict[tuple[str, str], list[float]] = defaultdict(list)
    for one in graded:
        items[item_of(one.question)].append(one.value)
    return list(items.values())


# --- one answer -------------------------------------------------------------------------------------------------


def exact(question: Question, prediction: str) -> float:
    """Whether the whole answer, in lower case without punctuation and articles, is a reference."""
    return float(normalise.plain(prediction) in map(normalise.plain, question.references))


def contains(question: Question, prediction: str) -> float:
    """Whether a reference stands in the answer as whole words, normalised as for ``exact``."""
    said = f" {normalise.plain(prediction)} "
    return float(any(f" {normalise.plain(reference)} " in said for reference in question.references))


def ocrbench(question: Question, prediction: str) -> float:
    """OCRBench (Liu et al. 2024): a reference stands anywhere in the answer, case and line breaks apart.

    The official script leaves out all spaces where handwritten formulas are compared; this does not.
    """
    said = " ".join(prediction.lower().split())
    return float(any(" ".join(reference.lower().split()) in said for reference in question.references))


def vqa_accuracy(question: Question, prediction: str) -> float:
    """VQA v2 (Antol et al. 2015; Goyal et al. 2017): min(agreeing references / 3, 1).

    Averaged over leaving out each reference in turn, as people were scored against the nine others. A single reference
    is simply right or wrong. All is normalised first; the official script leaves that out where all references are the
    same word for word, and there takes "Yes" for wrong if they say "yes".
    """
    said = normalise.vqa(prediction)
    agrees = [normalise.vqa(reference) == said for reference in question.references]
    if len(agrees) == 1:
        return float(agrees[0])
    total = sum(agrees)
    return math.fsum(min((total - one) / 3, 1.0) for one in agrees) / len(agrees)


def gqa(question: Question, prediction: str) -> float:
    """GQA (Hudson and Manning 2019): the whole answer is the reference, articles included; case and punctuation apart.

    The official script compares the bare strings: LLaVA lowers the answers and drops their full stop before.
    """
    return float(normalise.words_only(prediction) in map(normalise.words_only, question.references))


def yes_no(question: Question, prediction: str) -> float | None:
    """POPE (Li et al. 2023): whether yes or no, read from the answer's first sentence, is right.

    The official script reads a no from the words no and not, and takes everything else for a yes. Here none and
    contractions (isn't) are a no too, and an answer that says neither cannot be parsed.
    """
    said = parsing.yes_no(prediction)
    return None if said is None else float(said == parsing.yes_no(question.answer))


def mme(question: Question, prediction: str) -> float | None:
    """MME (Fu et al. 2023): whether yes or no, within the answer's first four characters, is right."""
    said = parsing.prefix_yes_no(prediction)
    return None if said is None else float(said == parsing.prefix_yes_no(question.answer))


def relaxed_accuracy(question: Question, prediction: str) -> float:
    """ChartQA (Masry et al. 2022): within 5 % of a numeric reference other than zero, else equal but for case.

    "20%" is 0.2, on either side. Years are numbers like others, so 1990 passes for 2019: so it does in the official
    metric, and scores are compared with those.
    """
    return max(_relaxed(reference, prediction) for reference in question.references)


def _relaxed(reference: str, prediction: str) -> float:
    wanted, said = parsing.number(reference), parsing.number(prediction)
    if said is not None and wanted:
        return float(abs(said - wanted) / abs(wanted) <= RELAXED_TOLERANCE)
    return float(prediction.strip().lower() == reference.strip().lower())


def anls(question: Question, prediction: str) -> float:
    """Average normalised Levenshtein similarity (Biten et al. 2019): the best reference's, 0 from a distance of 0.5 on.

    At exactly 0.5 DocVQA's script gives 0.5; the paper, and this, give 0.
    """
    said = " ".join(prediction.lower().split())
    best = 0.0
    for reference in question.references:
        wanted = " ".join(reference.lower().split())
        distance = _edits(said, wanted) / max(len(said), len(wanted), 1)
        best = max(best, 1 - distance if distance < ANLS_THRESHOLD else 0.0)
    return best


def _edits(first: str, second: str) -> int:
    """Levenshtein's distance."""
    row = list(range(len(second) + 1))
    for i, a in enumerate(first, 1):
        before, row[0] = row[0], i
        for j, b in enumerate(second, 1):
            before, row[j] = row[j], min(row[j] + 1, row[j - 1] + 1, before + (a != b))
    return row[-1]


def multiple_choice(question: Question, prediction: str) -> float | None:
    """Whether the choice an answer names, by letter or by text, is the right one."""
    said = parsing.option(prediction, question.choices)
    return None if said is None else float(said == parsing.option(question.answer, question.choices))


def refcoco_accuracy(question: Question, prediction: str) -> float | None:
    """RefCOCO's accuracy@0.5 (Yu et al. 2016): the box and the reference's share at least half of their union.

    Numbers that are all at most 1 are shares of the picture's sides, others are pixels.
    """
    said, wanted = parsing.box(prediction), parsing.box(question.answer)
    if said is None or wanted is None:
        return None
    if (max(said) <= 1) != (max(wanted) <= 1):
        said, wanted = to_pixels(said, question.image), to_pixels(wanted, question.image)
    return float(union_share(said, wanted) >= BOX_THRESHOLD)


# --- all answers of a task --------------------------------------------------------------------------------------


def pope_figures(graded: Sequence[Graded]) -> dict[str, float]:
    """POPE's precision, recall and F1 of yes, and the share of yes among the answers."""
    said = [parsing.yes_no(one.prediction) == "yes" for one in graded]
    wanted = [parsing.yes_no(one.question.answer) == "yes" for one in graded]
    hits = sum(a and b for a, b in zip(said, wanted, strict=True))
    precision = hits / sum(said) if any(said) else 0.0
    recall = hits / sum(wanted) if any(wanted) else 0.0
    return {
        "precision": precision,
        "recall": recall,
        "f1": 2 * precision * recall / (precision + recall) if hits else 0.0,
        "yes_ratio": sum(said) / len(said),
    }


def mme_figures(graded: Sequence[Graded]) -> dict[str, float]:
    """MME's accuracy+ (both questions of a picture right) and score: the sum of both in per cent, 0 to 200."""
    pairs = _by_item(graded)
    accuracy = math.fsum(one.value for one in graded) / len(graded)
    plus = sum(min(values) == 1 for values in pairs) / len(pairs)
    return {"accuracy_plus": plus, "mme_score": 100 * (accuracy + plus)}


def circular_figures(graded: Sequence[Graded]) -> dict[str, float]:
    """The accuracy of single questions, beside that of whole groups."""
    return {"accuracy_single": math.fsum(one.value for one in graded) / len(graded)}


METRICS: dict[str, Metric] = {
    "exact": Metric("the whole answer, without case, punctuation and articles", exact),
    "contains": Metric("a reference stands in the answer, as whole words", contains),
    "vqa_accuracy": Metric(
        "VQA v2: min(agreeing references / 3, 1), leaving out one at a time", vqa_accuracy, "Goyal et al. 2017"
    ),
    "gqa": Metric("GQA: the whole answer, without case and punctuation", gqa, "Hudson and Manning 2019"),
    "pope": Metric("POPE: yes or no", yes_no, "Li et al. 2023", pope_figures, closed=2),
    "mme": Metric("MME: yes or no, and both questions of a picture", mme, "Fu et al. 2023", mme_figures, closed=2),
    "relaxed_accuracy": Metric(
        "ChartQA: numbers within 5 %, other answers whole", relaxed_accuracy, "Masry et al. 2022"
    ),
    "anls": Metric("DocVQA: Levenshtein similarity, 0 from a distance of half on", anls, "Biten et al. 2019"),
    "ocrbench": Metric("OCRBench: a reference stands anywhere in the answer", ocrbench, "Liu et al. 2024"),
    "multiple_choice": Metric("the choice named by letter or text", multiple_choice),
    "circular": Metric(
        "MMBench: the choice named, right in all orders of the choices",
        multiple_choice,
        "Liu et al. 2023",
        circular_figures,
        whole_groups=True,
    ),
    "refcoco_accuracy": Metric("RefCOCO: boxes that share half of their union", refcoco_accuracy, "Yu et al. 2016"),
}


def score_one(question: Question, prediction: str) -> float:
    """The score of one answer in 0..1 by the question's metric; 0 where it cannot be parsed."""
    return METRICS[question.metric].score_one(question, prediction) or 0.0


def check_questions(questions: Sequence[Question]) -> None:
    """Raise ``UserError`` unless every question can be scored: its metric exists and its own answer would be right."""
    if not questions:
        raise UserError("there are no questions: check the file, or --limit")
    for question in questions:
        if question.metric not in METRICS:
            raise UserError(
                f"question {question.id} names the metric {question.metric!r}: use one of {', '.join(METRICS)}"
            )
        chosen = question.metric in ("multiple_choice", "circular")
        if chosen and not question.choices:
            raise UserError(f"question {question.id} has no choices: {question.metric} needs them")
        if question.choices and not chosen and not _among(question.answer, question.choices):
            raise UserError(f"question {question.id}: its answer {question.answer!r} is not among its choices")
        if not score_one(question, question.answer):
            raise UserError(
                f"question {question.id}: its answer {question.answer!r} is none that {question.metric} can tell "
                "right: check answer, choices and metric"
            )


def _among(answer: str, choices: Sequence[str]) -> bool:
    return normalise.plain(answer) in map(normalise.plain, choices)

"""What a model would answer with other layer weights: each group left out, each alone, all alike, or the weights of
another question.

Letters: ``I`` images, ``N`` patches, ``K`` layer groups.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from igva.data.images import open_image
from igva.data.questions import Question
from igva.errors import UserError
from igva.eval.metrics import score_one
from igva.eval.run import chat_of
from igva.files import write_errors
from igva.layer_names import group_names
from igva.model.fusion_mean import GroupedFusion
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.model.vision_layers import VisionLayers
from igva.plot import LOW_TO_HIGH, new_figure
from igva.resume import Journal
from igva.study.paired import (
    ALL,
    LEVEL,
    PAIRED_COLUMNS,
    Paired,
    Run,
    by_category,
    compare_questions,
    holm,
    largest,
    paired_cells,
)
from igva.tables import Cell, Table

Change = Callable[[Tensor], Tensor]  # weights (I, K) or (I, N, K) → the same shape

ANSWERS = "answers.jsonl"
AS_IS = "as it is"
ALIKE = "all groups alike"
SWAPPED = "weights of another question"
FIXED = "its mean weights for all"


# --- other weights ---------------------------------------------------------------------------------------------------


def without(group: int) -> Change:
    """Weight 0 for one group, the others scaled to sum to 1; alike where it had all of the weight."""

    def change(weights: Tensor) -> Tensor:
        rest = weights.clone()
        rest[..., group] = 0
        alike = torch.ones_like(weights)
        alike[..., group] = 0
        total = rest.sum(dim=-1, keepdim=True)
        return torch.where(total > 1e-6, rest / total.clamp_min(1e-6), alike / max(weights.shape[-1] - 1, 1))

    return change


def only(group: int) -> Change:
    """Weight 1 for one group."""

    def change(weights: Tensor) -> Tensor:
        alone = torch.zeros_like(weights)
        alone[..., group] = 1
        return alone

    return change


def always(mixture: Tensor) -> Change:
    """The same weights ``(K,)`` whatever is asked and shown, in every patch: a mixture without a guide."""

    def change(weights: Tensor) -> Tensor:
        return mixture.to(weights).expand_as(weights)

    return change


def alike(weights: Tensor) -> Tensor:
    """The same weight for every group: no question, no picture has a say."""
    return torch.full_like(weights, 1 / weights.shape[-1])


def check_forcible(model: IgvaForConditionalGeneration) -> None:
    """Raise ``UserError`` unless the features are a function of the layer means and the weights alone."""
    if not isinstance(model.model.fusion, GroupedFusion):
        raise _not_forcible(model)


def _not_forcible(model: IgvaForConditionalGeneration) -> UserError:
    return UserError(
        f"fusion {model.config.fusion!r} does not simply mix layer groups by weights: none can be forced on it"
    )


@contextmanager
def forced_weights(model: IgvaForConditionalGeneration, change: Change) -> Iterator[None]:
    """Inside it every picture is mixed by ``change(weights)``, in place of the weights that the fusion gave.

    Raises:
        UserError: the fusion's features are no function of its weights (it has none, or does more than mixing).
    """
    check_forcible(model)
    checked = False

    def hook(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
        nonlocal checked
        layers = args[0] if args else kwargs["layers"]
        if not checked and not torch.allclose(module.mix(layers, output.weights), output.features):
            raise _not_forcible(model)  # a subclass that does something else besides
        checked = True
        weights = change(output.weights)
        return dataclasses.replace(output, features=module.mix(layers, weights), weights=weights)

    handle = model.model.fusion.register_forward_hook(hook, with_kwargs=True)
    try:
        yield
    finally:
        handle.remove()


# --- the answers -----------------------------------------------------------------------------------------------------


def conditions(names: Sequence[str], mean: Tensor) -> dict[str, Change | None]:
    """What is done to the weights, by name; None where the fusion weighs by itself.

    Args:
        mean: ``(K,)``, of the weights of all questions.
    """
    changes: dict[str, Change | None] = {AS_IS: None, SWAPPED: None, FIXED: always(mean), ALIKE: alike}
    changes |= {f"without {name}": without(k) for k, name in enumerate(names)}
    changes |= {f"{name} alone": only(k) for k, name in enumerate(names)}
    return changes


def answer_all(
    model: IgvaForConditionalGeneration,
    processor: IgvaProcessor,
    questions: Sequence[Question],
    others: Mapping[str, str],
    mean: Tensor,
    out: Path,
    *,
    batch_size: int = 16,
    max_new_tokens: int = 16,
) -> dict[str, dict[str, str]]:
    """Every question answered under every condition; goes on where an earlier call into the folder stopped.

    Args:
        others: question id → the question whose weights it gets under ``SWAPPED``; the language model still reads the
            question itself. Questions without one are left out there.
        mean: ``(K,)``, the weights that all get under ``FIXED``.

    Returns:
        Condition → question id → answer.
    """
    journal = Journal(out / ANSWERS)
    changes = conditions(group_names(model), mean)
    needed = changes.keys() - {SWAPPED}
    done: dict[str, dict[str, str]] = {
        entry["id"]: entry["answers"] for entry in journal.entries() if needed <= entry.get("answers", {}).keys()
    }
    # Questions about one picture share a batch, so that its tower pass is shared too.
    todo = sorted((q for q in questions if q.id not in done), key=lambda q: str(q.image))
    with (
        write_errors(journal.file),
        journal.adding() as add,
        tqdm(total=len(questions), initial=len(questions) - len(todo), desc="answers", unit="question") as bar,
    ):
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            asked = _Batch(model, processor, batch, [others.get(q.id, q.question) for q in batch])
            answers = {name: asked.answers(change, name == SWAPPED, max_new_tokens) for name, change in changes.items()}
            for row, question in enumerate(batch):
                done[question.id] = {name: texts[row] for name, texts in answers.items()}
                if question.id not in others:
                    del done[question.id][SWAPPED]
                add({"id": question.id, "answers": done[question.id]})
            bar.update(len(batch))
    wanted = [question.id for question in questions]
    return {name: {i: done[i][name] for i in wanted if name in done[i]} for name in changes}


class _Batch:
    """Questions whose pictures went through the tower once; answers them under one condition after another."""

    @torch.inference_mode()
    def __init__(
        self,
        model: IgvaForConditionalGeneration,
        processor: IgvaProcessor,
        questions: Sequence[Question],
        others: Sequence[str],
    ):
        self.model, self.processor = model, processor
        images = list(dict.fromkeys(question.image for question in questions))
        pictures = {image: open_image(image) for image in images}
        chats = [chat_of(question, pictures[question.image]) for question in questions]
        inputs = processor.apply_chat_template(
            chats, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True, padding=True
        ).to(model.device)
        firsts = [next(row for row, q in enumerate(questions) if q.image == image) for image in images]
        layers = model.model.encode_image_layers(inputs.pop("pixel_values")[firsts])
        rows = [images.index(question.image) for question in questions]
        self.layers = VisionLayers(layers.patches[rows], layers.descriptors[rows])
        self.text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        self.own = {name: value for name, value in inputs.items() if name.startswith("instruction_")}
        turns = [processor.user_turns([{"role": "user", "content": other}]) for other in others]
        encoded = processor.encode_instructions(turns) if self.own else {}
        self.other = {name: torch.tensor(value).to(model.device) for name, value in encoded.items()}

    @torch.inference_mode()
    def answers(self, change: Change | None, swapped: bool, max_new_tokens: int) -> list[str]:
        instruction: dict[str, Any] = self.other if swapped else self.own
        with forced_weights(self.model, change) if change else nullcontext():
            features = self.model.get_image_features(
                layer_patches=self.layers.patches, layer_descriptors=self.layers.descriptors, **instruction
            )
        ids = self.model.generate(
            **self.text, mm_encoder_outputs={"image": features}, max_new_tokens=max_new_tokens, do_sample=False
        )
        texts: list[str] = self.processor.tokenizer.batch_decode(
            ids[:, self.text["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return [text.strip() for text in texts]


def score_answers(questions: Sequence[Question], answers: Mapping[str, dict[str, str]]) -> dict[str, Run]:
    """Condition → the answers given under it, with their scores in 0..1."""
    by_id = {question.id: question for question in questions}
    return {
        name: Run(texts, {i: float(score_one(by_id[i], text)) for i, text in texts.items()})
        for name, texts in answers.items()
    }


# --- what the answers come to ----------------------------------------------------------------------------------------


@dataclasses.dataclass(frozen=True)
class Effect:
    """Answers under other weights against those of the model as it is, on some questions.

    Attributes:
        pair: the model as it is first.
        p: corrected by Holm: over the conditions where all questions are meant, else over conditions and categories.
    """

    pair: Paired
    p: float


Effects = Mapping[str, Mapping[str, Effect]]  # condition → category, or ``ALL`` of them → effect


def effects(questions: Sequence[Question], runs: Mapping[str, Run]) -> Effects:
    """Every condition against the model as it is, over all questions and per category."""
    pairs: dict[tuple[str, str], Paired] = {}
    for condition, run in runs.items():
        if condition == AS_IS or not run.scores:
            continue
        known = [question for question in questions if question.id in run.scores]
        for name, members in {ALL: known, **by_category(known)}.items():
            pairs[condition, name] = compare_questions(members, runs[AS_IS].scores, run.scores)
    corrected: dict[str, float] = {}
    for overall in (True, False):  # two families: over all questions, and within categories
        corrected |= holm({f"{c}\n{n}": pair.p for (c, n), pair in pairs.items() if (n == ALL) == overall})
    nested: dict[str, dict[str, Effect]] = {}
    for (condition, name), pair in pairs.items():
        nested.setdefault(condition, {})[name] = Effect(pair, corrected[f"{condition}\n{name}"])
    return nested


def effects_table(by_condition: Effects) -> Table:
    """A row per condition and category."""
    rows: list[list[Cell]] = [
        [condition, name, *paired_cells(effect.pair), effect.p]
        for condition, by_name in by_condition.items()
        for name, effect in by_name.items()
    ]
    return Table(
        "counterfactuals",
        "Accuracy with other weights",
        ["weights", "category", *PAIRED_COLUMNS, "p corrected"],
        rows,
        "Before: as the model is; after: with other weights. Difference in points with its 95 % interval (low to "
        "high); one without width: no question's score changed. p: McNemar's exact test (a paired t test where "
        "scores are not 0 or 1), corrected by Holm over the rows of all questions, and over those of categories.",
    )


def answers_changed_table(questions: Sequence[Question], runs: Mapping[str, Run]) -> Table:
    """How often the words of the answer differ from those given as it is."""
    rows: list[list[Cell]] = []
    own = runs[AS_IS].answers
    groups = {**by_category(questions), ALL: list(questions)}
    for name, run in runs.items():
        if name == AS_IS or not run.answers:
            continue
        row: list[Cell] = [name]
        for members in groups.values():
            known = [q.id for q in members if q.id in run.answers]
            share = sum(run.answers[i] != own[i] for i in known) / len(known) if known else None
            row.append(None if share is None else round(100 * share, 1))
        rows.append(row)
    return Table(
        "answers_changed", "Answers whose words change, %", ["weights", *groups], rows, "Against the model as it is."
    )


def describe_effects(by_condition: Effects) -> list[str]:
    """In words: every condition over all questions, then the categories where something stands after correction."""
    first = next(iter(by_condition.values()))[ALL].pair
    lines = [f"As it is, the model answers {first.first:.1f} % of {first.count} questions right."]
    harm: list[str] = []
    gain: list[str] = []
    same: list[str] = []
    for condition, by_name in by_condition.items():
        effect = by_name[ALL]
        text = f"{condition}: {effect.pair.difference:+.1f} points"
        (same if effect.p >= LEVEL else harm if effect.pair.difference < 0 else gain).append(text)
    if harm:
        lines.append(f"It is worse with other weights: {'; '.join(harm)}.")
    if gain:
        lines.append(f"It is better with other weights: {'; '.join(gain)}.")
    if same:
        lines.append(f"No difference beyond chance was found: {'; '.join(same)}.")
    where = [
        f"{name}, {condition}: {effect.pair.difference:+.1f}"
        for condition, by_name in by_condition.items()
        for name, effect in by_name.items()
        if name != ALL and effect.p < LEVEL
    ]
    if where:
        lines.append(f"By category (points, p below {LEVEL} after correction): {'; '.join(where)}.")
    return lines


def draw_effects(by_condition: Effects) -> Any:
    """Change of accuracy with its interval per condition and category; filled where it stands after correction."""
    from matplotlib import colormaps

    families = {
        "a group left out": [name for name in by_condition if name.startswith("without ")],
        "one group alone": [name for name in by_condition if name.endswith(" alone")],
    }
    families["others"] = [name for name in by_condition if not any(name in members for members in families.values())]
    families = {title: members for title, members in families.items() if members}
    counts = {name: effect.pair.count for name, effect in next(iter(by_condition.values())).items()}
    categories = largest(counts)
    height = 0.62 * len(categories)
    figure = new_figure(4.6 * len(families), 1.6 + height)
    axes = figure.subplots(1, len(families), squeeze=False, sharex=True, sharey=True)[0]
    for axis, (title, members) in zip(axes, families.items(), strict=True):
        step = 0.8 / len(members)
        for number, condition in enumerate(members):
            color = colormaps[LOW_TO_HIGH](0.35 + 0.6 * number / max(len(members) - 1, 1))
            for y, category in enumerate(categories):
                if category not in by_condition[condition]:
                    continue
                effect = by_condition[condition][category]
                pair = effect.pair
                axis.errorbar(
                    pair.difference,
                    y - 0.4 + step * (number + 0.5),
                    xerr=[[max(pair.difference - pair.low, 0)], [max(pair.high - pair.difference, 0)]],
                    fmt="o",
                    markersize=4.5,
                    color=color,
                    markerfacecolor=color if effect.p < LEVEL else "white",
                    capsize=1.5,
                    linewidth=1,
                    label=condition if y == 0 else None,
                )
        for y in range(len(categories) - 1):
            axis.axhline(y + 0.5, color="0.9", linewidth=0.8)
        axis.axvline(0, color="black", linewidth=0.8)
        axis.set_title(title, fontsize=10)
        axis.set_xlabel("change in accuracy, points")
        axis.legend(fontsize=7.5, frameon=False, loc="upper center", bbox_to_anchor=(0.5, -0.5 / height))
        axis.spines[["top", "right"]].set_visible(False)
    axes[0].set_yticks(range(len(categories)), categories)
    axes[0].set_ylim(len(categories) - 0.5, -0.5)
    return figure

"""How a model weighs its layer groups for a question, and how it fares with other weights.

Letters: ``n`` questions, ``I`` images, ``N`` patches, ``K`` layer groups, ``E`` instruction width.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm

from igva.data.images import ImageSource, open_image
from igva.errors import UserError
from igva.layer_names import group_label, layer_names
from igva.model.fusion_mean import GroupedFusion
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor, instruction_text
from igva.train.feature_cache import InstructionCache

Change = Callable[[Tensor], Tensor]  # weights (I, K) or (I, N, K) → the same shape


def group_names(model: IgvaForConditionalGeneration) -> list[str]:
    """The layer groups in words.

    Raises:
        UserError: the model's fusion has no weights.
    """
    groups = model.model.fusion.layer_groups
    if not groups:
        raise UserError(
            f"fusion {model.config.fusion!r} has no layer weights to study: use a model with fusion igva, or another "
            "that weighs its layers"
        )
    names = layer_names(model.config)
    return [group_label(group, names) for group in groups]


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
    for place, (image, _) in enumerate(pairs):
        by_image.setdefault(image, []).append(place)
    weights = torch.zeros(len(pairs), len(group_names(model)))
    images = list(by_image)
    with tqdm(total=len(pairs), desc=desc, unit="question") as bar:
        for start in range(0, len(images), batch_size):
            batch = images[start : start + batch_size]
            pixels = processor.prepare_images([open_image(image) for image in batch])
            layers = model.model.encode_image_layers(pixels.to(model.device))
            asked = [(row, place) for row, image in enumerate(batch) for place in by_image[image]]
            for first in range(0, len(asked), batch_size):
                rows, places = (list(part) for part in zip(*asked[first : first + batch_size], strict=True))
                features = model.get_image_features(
                    layer_patches=layers.patches[rows],
                    layer_descriptors=layers.descriptors[rows],
                    instruction_embeds=None if vectors is None else vectors[places],
                )
                if features.fusion_weights is None:
                    raise UserError(f"fusion {model.config.fusion!r} gives no layer weights")
                found = features.fusion_weights.float().cpu()
                weights[places] = found.mean(dim=1) if found.dim() == 3 else found
                bar.update(len(places))
    return weights


def entropy(weights: Tensor) -> Tensor:
    """``(n, K)`` → ``(n,)`` in nats, between 0 (one group has it all) and log K (all alike)."""
    return torch.special.entr(weights.double()).sum(dim=-1)


def total_variation(first: Tensor, second: Tensor) -> Tensor:
    """Half the L1 distance of weights, ``(n, K)`` each → ``(n,)``: the share of weight that moved, 0 to 1."""
    return (first.double() - second.double()).abs().sum(dim=-1) / 2


def explained_variance(weights: Tensor, labels: Sequence[str]) -> tuple[float, float]:
    """The share of the weights' variance that lies between the classes of a label (η²), summed over the groups.

    Returns:
        The share, and what labels drawn at random would give on average, ``(classes - 1) / (n - 1)``. The share is
        NaN where the weights do not vary at all.
    """
    points = weights.double()
    total = (points - points.mean(dim=0)).square().sum()
    classes = sorted(set(labels))
    between = torch.zeros((), dtype=torch.float64)
    for name in classes:
        rows = points[[label == name for label in labels]]
        between += len(rows) * (rows.mean(dim=0) - points.mean(dim=0)).square().sum()
    share = float(between / total) if total > 1e-10 * len(points) else math.nan
    return share, (len(classes) - 1) / max(len(points) - 1, 1)


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

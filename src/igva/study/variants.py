"""What a study compares: a fusion with options, written on one line."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import yaml

from igva.errors import UserError
from igva.model.fusion_base import Fusion, FusionDims
from igva.model.fusions import build_fusion, fusion_class


@dataclass(frozen=True)
class Variant:
    """A fusion of the table and its options; ``label`` is how it was written."""

    label: str
    fusion: str
    kwargs: dict[str, Any] = field(default_factory=dict)

    def build(self, dims: FusionDims) -> Fusion:
        """The fusion, freshly initialised.

        Raises:
            UserError: no such fusion or option, or it does not fit the tower.
        """
        try:
            return build_fusion(self.fusion, self.kwargs, dims)
        except (ValueError, TypeError) as error:
            raise UserError(f"{self.label}: {error}") from error


def parse_variant(text: str) -> Variant:
    """``igva:level_embeddings=true,hidden_size=256`` → a variant; values are YAML.

    Raises:
        UserError: an option without a value, or a value that is not YAML.
    """
    name, _, options = text.partition(":")
    kwargs = {}
    for option in _split(options):
        key, equals, value = option.partition("=")
        if not equals or not key:
            raise UserError(f"{text}: option {option!r} needs a value, as in single:layer=-2")
        try:
            kwargs[key.strip()] = yaml.safe_load(value)
        except yaml.YAMLError as error:
            raise UserError(f"{text}: the value of {key!r} is not YAML") from error
    return Variant(text, name.strip(), kwargs)


def parse_variants(texts: Sequence[str], dims: FusionDims) -> list[Variant]:
    """All of them, each tried on the tower before anything is trained.

    Raises:
        UserError: none, one named twice, or one that cannot be built.
    """
    variants = [parse_variant(text) for text in texts]
    labels = [variant.label for variant in variants]
    if not variants:
        raise UserError("no fusion is named: see `igva fusions`")
    if twice := next((label for label in labels if labels.count(label) > 1), None):
        raise UserError(f"{twice} is named twice: name each fusion once")
    for variant in variants:
        variant.build(dims)
    return variants


def align_variant(variant: Variant, dims: FusionDims) -> Variant:
    """What stands in for a fusion while the projector alone is trained.

    A fusion that reads no question stays itself. One that does is untrained then, and the align stage has captions,
    not questions: IGVA takes the plain average of its groups (as the paper), one that hands on as many channels as a
    layer has takes its base layer.

    Raises:
        UserError: it is neither.
    """
    if not fusion_class(variant.fusion).needs_instruction:
        return variant
    built = variant.build(dims)
    if variant.fusion == "igva":
        kept = {key: value for key, value in variant.kwargs.items() if key in ("num_groups", "groups", "base_layer")}
        return Variant(variant.label, "mean", kept)
    if built.output_dim == dims.vision_dim and built.num_tokens == dims.num_patches:
        return Variant(variant.label, "single", {"layer": -2})
    raise UserError(f"{variant.label} has no stand-in for the align stage: leave that recipe out")


def _split(options: str) -> list[str]:
    """At commas outside brackets: ``layers=[1,2],k=3`` has two options."""
    parts, depth = [""], 0
    for character in options:
        depth += (character in "[{(") - (character in "]})")
        if character == "," and depth == 0:
            parts.append("")
        else:
            parts[-1] += character
    return [part for part in parts if part.strip()]

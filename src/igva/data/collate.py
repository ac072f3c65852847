"""Samples → batches: a row each, padded on the right, or packed without padding between them.

Letters: ``R`` rows, ``S`` tokens of a row, ``I`` pictures.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import chain
from typing import Any

import torch
from torch import Tensor

from igva.data.dataset import Sample
from igva.data.labels import IGNORE
from igva.data.packing import pack_rows
from igva.errors import UserError
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor


class Collator:
    """Samples → one batch for the model.

    A batch has ``input_ids`` and ``labels (R, S)``, the picture inputs of all samples one after another in the order
    of their placeholders, and for messages and figures ``ids`` (one per sample), ``sources`` (one per picture) and,
    if there are any, ``bad_images``. Besides, without packing, an ``attention_mask (R, S)``; with packing, what keeps
    the samples of a row apart (see ``_packed``).

    A sample marked ``skipped`` is left out. Where all are, one stays, which has nothing to learn: no rank of a
    distributed run may be without a batch.

    Args:
        pack_tokens: samples share rows of at most this many tokens; None: a row each.
        dummy: what ``dummy_picture`` made. A batch without pictures gets it, with ``dummy_image=True``: on a
            distributed run every rank has to run every module. It has no placeholder and no source, and the model
            must multiply what comes of it by zero.
    """

    PER_IMAGE = ("pixel_values", "layer_patches", "layer_descriptors", "instruction_embeds")

    def __init__(self, processor: IgvaProcessor, pack_tokens: int | None = None, dummy: Sample | None = None):
        self.processor = processor
        self.pack_tokens = pack_tokens
        self.dummy = dummy

    def __call__(self, samples: Sequence[Sample]) -> dict[str, Any]:
        """Collate.

        Raises:
            UserError: a sample is longer than ``pack_tokens``; the message names it.
        """
        bad_images = [image for sample in samples for image in sample.get("bad_images", ())]
        kept = [sample for sample in samples if not sample.get("skipped")] or [samples[0]]
        if self.pack_tokens is None:
            batch = self._text([[sample] for sample in kept])
            batch["attention_mask"] = _right_padded([[1] * len(s["input_ids"]) for s in kept], 0)
        else:
            rows = _rows(kept, self.pack_tokens)
            kept = list(chain.from_iterable(rows))  # pictures follow their placeholders
            batch = self._packed(rows)
        batch["ids"] = [s["id"] for s in kept]
        batch["sources"] = [s["source"] for s in kept for _ in range(s["images"])]
        if bad_images:
            batch["bad_images"] = bad_images
        if self.dummy is not None and not batch["sources"]:
            batch["dummy_image"] = True
            kept = [self.dummy]
        return batch | self._pictures(kept)

    def _text(self, rows: list[list[Sample]]) -> dict[str, Any]:
        """Tokens and labels of rows of samples, ``(R, S)``."""
        pad = self.processor.tokenizer.pad_token_id
        return {
            "input_ids": _right_padded([_joined(row, "input_ids") for row in rows], pad),
            "labels": _right_padded([_joined(row, "labels") for row in rows], IGNORE),
        }

    def _packed(self, rows: list[list[Sample]]) -> dict[str, Any]:
        """Rows of several samples, and what keeps these apart.

        With ``position_ids (R, S)`` that start again at each sample and neither an attention mask nor a cache,
        transformers builds block-diagonal masks. Flash attention reads positions only in batches of one row, so it
        gets the samples' bounds in the flattened batch. Padding at a row's end counts as one more sample.
        """
        batch = self._text(rows)
        width = batch["input_ids"].shape[1]
        positions = []
        for row in rows:
            lengths = [len(sample["input_ids"]) for sample in row]
            positions.append(list(chain.from_iterable(map(range, [*lengths, width - sum(lengths)]))))
        batch["position_ids"] = torch.tensor(positions)
        starts = (batch["position_ids"].flatten() == 0).nonzero().flatten()
        bounds = torch.nn.functional.pad(starts, (0, 1), value=batch["position_ids"].numel()).to(torch.int32)
        batch["cu_seq_lens_q"] = batch["cu_seq_lens_k"] = bounds
        batch["max_length_q"] = batch["max_length_k"] = int(bounds.diff().max())
        batch["use_cache"] = False  # with a cache transformers does not look for packed samples
        return batch

    def _pictures(self, samples: Sequence[Sample]) -> dict[str, Tensor]:
        """The inputs that have one row per picture."""
        inputs = {name: torch.cat(rows) for name in self.PER_IMAGE if (rows := [s[name] for s in samples if name in s])}
        if turns := [row for s in samples for row in s.get("instruction_turns", ())]:
            tokens = self.processor.encode_instructions(turns)
            inputs |= {name: torch.tensor(value) for name, value in tokens.items()}
        return inputs


def dummy_picture(model: IgvaForConditionalGeneration, *, cached: bool) -> Sample:
    """A picture of zeros and an empty instruction, in the form the data set's samples have them.

    Args:
        cached: as layer means and a sentence vector, in place of pixels and text.
    """
    fusion, dims = model.model.fusion, model.model.fusion.dims
    if cached:
        picture: Sample = {
            "layer_patches": torch.zeros(1, len(fusion.taps), dims.num_patches, dims.vision_dim),
            "layer_descriptors": torch.zeros(1, len(fusion.taps), dims.vision_dim),
        }
    else:
        picture = {"pixel_values": torch.zeros(1, 3, model.config.input_size, model.config.input_size)}
    if fusion.needs_instruction:
        if cached:
            picture["instruction_embeds"] = torch.zeros(1, dims.instruction_dim or 0)
        else:
            picture["instruction_turns"] = [[]]
    return picture


def _rows(samples: Sequence[Sample], pack_tokens: int) -> list[list[Sample]]:
    """The samples as rows of at most ``pack_tokens`` tokens.

    Raises:
        UserError: a sample is longer than that.
    """
    lengths = [len(sample["input_ids"]) for sample in samples]
    for sample, length in zip(samples, lengths, strict=True):
        if length > pack_tokens:
            raise UserError(
                f"sample {sample['id']} has {length} tokens, more than data.pack_tokens {pack_tokens}: "
                "raise it, or lower data.max_length"
            )
    return [[samples[i] for i in row] for row in pack_rows(lengths, pack_tokens)]


def _joined(row: list[Sample], name: str) -> list[int]:
    """The tokens or labels of a row's samples.

    The first label of a sample is never learnt: nothing before it belongs to the sample, and in a packed row the
    last token of the sample before would predict it.
    """
    if name == "labels":
        return [label for sample in row for label in [IGNORE, *sample[name][1:]]]
    return [token for sample in row for token in sample[name]]


def _right_padded(rows: list[list[int]], value: int) -> Tensor:
    length = max(map(len, rows))
    return torch.tensor([row + [value] * (length - len(row)) for row in rows])

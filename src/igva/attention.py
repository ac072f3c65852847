"""What each layer of a vision tower attends to on one picture, for the study of attention and the server's page.

Letters: ``L`` encoder layers, ``A`` heads, ``P`` prefix tokens (CLS, registers), ``N`` patches, ``S = P + N``,
``T`` taps, ``D`` vision width.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from igva.errors import UserError
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.vision_ensemble import EnsembleVisionConfig
from igva.model.vision_layers import Tap, VisionLayers, encoder_blocks


@dataclass(frozen=True)
class Attention:
    """Where a tower looks.

    Attributes:
        keys: ``(L, A, S)``, per layer and head the attention over all tokens, prefix first; each row sums to 1. It is
            the CLS token's, or the mean over all patches for towers without one. Of a tower of several encoders it is
            the mean over the heads (``A`` is 1) on the cells of the common grid.
        prefix: ``P``; of several encoders the most that one has, the others' are filled up with zeros.
        layers: which layers these are, ``L`` numbers: those of convolutional encoders have no attention.
        source: whose attention it is, in words.
        activity: there is no attention, since no encoder is a transformer; this is how far each patch lies from the
            mean of all, as a share of the whole (``A`` is 1).
    """

    keys: Tensor
    prefix: int
    layers: tuple[int, ...]
    source: str = "the CLS token"
    activity: bool = False

    @property
    def what(self) -> str:
        """What it is, in words."""
        if self.activity:
            return "Activity (how far a patch lies from the mean of all)"
        return f"Attention of {self.source}"

    def maps(self) -> Tensor:
        """Mean over the heads on the patches, ``(L, side, side)``; what falls on the prefix is left out."""
        return to_grid(self.keys.mean(dim=1)[:, self.prefix :])


def to_grid(patches: Tensor) -> Tensor:
    """``(n, N, …)`` → ``(n, side, side, …)``; the grid is square."""
    side = int(patches.shape[1] ** 0.5)
    return patches.unflatten(1, (side, side))


@torch.inference_mode()
def tower_attention(
    model: IgvaForConditionalGeneration, pixel_values: Tensor, taps: Sequence[Tap]
) -> tuple[Attention, VisionLayers]:
    """Run the tower once over one picture, ``(1, 3, height, width)``.

    The attention is read as each block computes it: the (A, S, S) matrices of one layer at most are held.

    Returns:
        The attention of every layer (or its activity, see ``Attention``), and the layer means of ``taps``.

    Raises:
        UserError: the tower gives no attention weights.
    """
    tower, watched = model.model.vision_tower, _watched(model)
    if not watched:
        layers = range(1, int(model.config.vision.num_hidden_layers) + 1)
        means = model.model.encode_image_layers(pixel_values.to(model.device), [*taps, *((n,) for n in layers)])
        single = VisionLayers(means.patches[:, len(taps) :], means.descriptors[:, len(taps) :])
        return layer_activity(single), VisionLayers(means.patches[:, : len(taps)], means.descriptors[:, : len(taps)])
    rows: dict[int, Tensor] = {}
    with ExitStack() as stack:
        for layer, (block, patches) in watched.items():
            for module in block.modules():

                def keep(module: nn.Module, args: Any, output: Any, layer: int = layer, patches: int = patches) -> None:
                    matrix = _attention_matrix(output, patches)
                    if matrix is not None and layer not in rows:
                        own = matrix[0, :, 0] if matrix.shape[-1] > patches else matrix[0].mean(dim=1)
                        rows[layer] = own.float().cpu()

                stack.callback(module.register_forward_hook(keep).remove)
        for encoder in _transformers(model):
            stack.enter_context(_eager(encoder))
        wanted = list(taps)
        if isinstance(model.config.vision, EnsembleVisionConfig):
            wanted += [(layer,) for layer in watched]  # an encoder none of whose layers is wanted does not run
        means = model.model.encode_image_layers(pixel_values.to(model.device), wanted)
    if not rows or rows.keys() != watched.keys():
        raise UserError(f"the vision tower {type(tower).__name__} gives no attention weights: there is nothing to draw")
    means = VisionLayers(means.patches[:, : len(taps)], means.descriptors[:, : len(taps)])
    prefixes = {layer: rows[layer].shape[-1] - patches for layer, (_, patches) in watched.items()}
    prefix, numbers = max(prefixes.values()), tuple(watched)
    source = "the CLS token" if prefix else "the patches, on average"
    if not isinstance(model.config.vision, EnsembleVisionConfig):
        return Attention(torch.stack([rows[layer] for layer in numbers]), prefix, numbers, source), means
    if 0 in prefixes.values() and prefix:
        source = "the CLS token (where an encoder has none, of its patches, on average)"
    side = model.config.vision.grid
    keys = [_on_grid(rows[layer].mean(dim=0), prefixes[layer], prefix, side) for layer in numbers]
    return Attention(torch.stack(keys)[:, None], prefix, numbers, source), means


def _transformers(model: IgvaForConditionalGeneration) -> list[Any]:
    """The tower, or those of its encoders that have attention."""
    tower, config = model.model.vision_tower, model.config.vision
    if not isinstance(config, EnsembleVisionConfig):
        return [tower]
    return [encoder for part, encoder in zip(config.parts(), tower.encoders, strict=True) if part.patches is not None]


def _watched(model: IgvaForConditionalGeneration) -> dict[int, tuple[nn.Module, int]]:
    """Layer → the block whose attention it has, and how many patches that sees; only layers of transformers."""
    tower, config = model.model.vision_tower, model.config.vision
    if not isinstance(config, EnsembleVisionConfig):
        blocks = encoder_blocks(tower, int(config.num_hidden_layers))
        return {layer: (block, int(model.config.num_patches)) for layer, block in enumerate(blocks, start=1)}
    watched, before = {}, 0
    for part, encoder in zip(config.parts(), tower.encoders, strict=True):
        if part.patches is not None:
            blocks = encoder_blocks(encoder, int(encoder.config.num_hidden_layers))
            for number, layer in enumerate(part.layers, start=before + 1):
                watched[number] = (blocks[layer - 1], part.patches**2)
        before += len(part.layers)
    return watched


def _on_grid(row: Tensor, prefix: int, wanted: int, side: int) -> Tensor:
    """Attention ``(P + N,)`` of an encoder with its own grid → ``(wanted + side²,)``; what it sums to stays."""
    patches = to_grid(row[None, prefix:])  # (1, its side, its side)
    cells = nn.functional.adaptive_avg_pool2d(patches, side) * (patches.numel() / side**2)
    return torch.cat([row[:prefix], row.new_zeros(wanted - prefix), cells.flatten()])


def layer_activity(layers: VisionLayers) -> Attention:
    """Of each tap of one picture, ``(1, T, N, D)``, how far the patches lie from their mean, as shares of the whole."""
    patches = layers.patches[0].float()  # (T, N, D)
    far = (patches - patches.mean(dim=1, keepdim=True)).norm(dim=-1).clamp_min(1e-9)
    shares = far / far.sum(dim=1, keepdim=True)
    return Attention(shares[:, None].cpu(), prefix=0, layers=tuple(range(1, len(shares) + 1)), activity=True)


def _attention_matrix(output: Any, patches: int) -> Tensor | None:
    """The weights ``(1, A, S, S)`` where a module's output has them beside its states."""
    for part in output if isinstance(output, tuple) else ():
        if torch.is_tensor(part) and part.dim() == 4 and part.shape[-1] == part.shape[-2] >= patches:
            return part
    return None


@contextmanager
def _eager(encoder: Any) -> Iterator[None]:
    """The fused kernels never hold the weights; inside this the encoder does without them."""
    before = encoder.config._attn_implementation
    encoder.set_attn_implementation("eager")
    try:
        yield
    finally:
        encoder.set_attn_implementation(before)

"""From any vision tower, the layer means a fusion asks for, accumulated while the tower runs.

Letters: ``I`` images, ``L`` encoder layers, ``T`` taps, ``N`` patches, ``P`` prefix tokens (CLS, registers),
``D`` vision width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

# A tap is a set of hidden states whose mean is wanted: absolute numbers in 0..L, ascending; 0 is the
# embedding output, i the output of block i.
Tap = tuple[int, ...]


def resolve_layer(layer: int, num_layers: int) -> int:
    """The absolute number (0..L) of a hidden state; negative numbers count from the last (-1 is layer L).

    Raises:
        ValueError: the layer does not exist; the message has both numbers.
    """
    absolute = layer if layer >= 0 else num_layers + 1 + layer
    if not 0 <= absolute <= num_layers:
        raise ValueError(
            f"layer {layer} does not exist: the vision tower has {num_layers} layers "
            f"(use 0 to {num_layers}, or -1 to {-num_layers - 1})"
        )
    return absolute


def resolve_tap(layers: Iterable[int], num_layers: int) -> Tap:
    """The layers of one mean, absolute and ascending.

    Raises:
        ValueError: no layer, a layer that does not exist, or one named twice.
    """
    tap = tuple(sorted(resolve_layer(layer, num_layers) for layer in layers))
    if not tap:
        raise ValueError("a layer group is empty: name at least one layer in it")
    if len(set(tap)) != len(tap):
        raise ValueError(f"a layer group names a layer twice: {list(tap)}")
    return tap


def split_layers(num_layers: int, num_groups: int) -> tuple[Tap, ...]:
    """Layers 1..L in consecutive groups; where K does not divide L the earlier groups take the extra layers.

    Raises:
        ValueError: more groups than layers, or none.
    """
    if not 1 <= num_groups <= num_layers:
        raise ValueError(f"cannot split {num_layers} layers into {num_groups} groups")
    size, extra = divmod(num_layers, num_groups)
    groups, start = [], 1
    for k in range(num_groups):
        stop = start + size + (k < extra)
        groups.append(tuple(range(start, stop)))
        start = stop
    return tuple(groups)


@dataclass
class VisionLayers:
    """What a fusion reads, one entry per tap, in the order of its ``taps``.

    Attributes:
        patches: ``(I, T, N, D)``, the mean patch map of each tap.
        descriptors: ``(I, T, D)``, one global vector per tap: the CLS token, or the mean of the patches for
            towers without one. Registers never count.
    """

    patches: Tensor
    descriptors: Tensor

    def to(self, *args: Any, **kwargs: Any) -> VisionLayers:
        """The same on another device or in another dtype, with the arguments of ``Tensor.to``."""
        return VisionLayers(self.patches.to(*args, **kwargs), self.descriptors.to(*args, **kwargs))

    def normalized(self) -> VisionLayers:
        """Every patch and descriptor of every tap with mean 0 and variance 1 over its ``D`` channels."""
        width = self.patches.shape[-1:]
        return VisionLayers(
            nn.functional.layer_norm(self.patches, width), nn.functional.layer_norm(self.descriptors, width)
        )


def encoder_blocks(tower: nn.Module, num_layers: int) -> nn.ModuleList:
    """The tower's encoder blocks: its outermost ``ModuleList`` with one entry per layer.

    Raises:
        ValueError: there is no such list, so the tower cannot be tapped.
    """
    for module in tower.modules():  # breadth does not matter: an outer list comes before those inside its blocks
        if isinstance(module, nn.ModuleList) and len(module) == num_layers:
            return module
    raise ValueError(f"{type(tower).__name__} has no list of {num_layers} encoder blocks to read layers from")


# These towers resize their position embeddings to the input themselves and take no argument for it.
_INTERPOLATES_BY_ITSELF = frozenset({"dinov2", "dinov2_with_registers", "dinov3_vit"})


def position_arguments(config: Any, input_size: int) -> dict[str, Any]:
    """What a tower has to be told where its input has another size than it was made for."""
    if input_size == config.image_size or config.model_type in _INTERPOLATES_BY_ITSELF:
        return {}
    return {"interpolate_pos_encoding": True}


class _Accumulator:
    """Sums the hidden states of each tap as they pass; holds T sums, never all L+1 states."""

    def __init__(self, taps: Sequence[Tap]):
        self.taps = taps
        self.sums: list[Tensor | None] = [None] * len(taps)
        self._owned = [False] * len(taps)  # False: the sum is still the tower's own tensor, not to be written to

    def add(self, layer: int, state: Tensor) -> None:
        for t, tap in enumerate(self.taps):
            if layer not in tap:
                continue
            total = self.sums[t]
            if total is None:
                # Several half-precision states are summed in float32; one state stays as it is.
                self.sums[t] = state.float() if len(tap) > 1 else state
            elif self._owned[t] and not state.requires_grad:
                total.add_(state)
            else:
                self.sums[t] = total + state
                self._owned[t] = True

    def means(self) -> list[Tensor]:
        means = []
        for tap, total in zip(self.taps, self.sums, strict=True):
            if total is None:
                raise RuntimeError(
                    f"the vision tower never produced the layers {list(tap)} (a tower compiled by itself skips the "
                    "hooks that read them: compile the whole model instead)"
                )
            means.append(total / len(tap) if len(tap) > 1 else total)
        return means


def _before_first_block(accumulator: _Accumulator, module: nn.Module, args: Any, kwargs: Any) -> None:
    accumulator.add(0, args[0] if args else kwargs["hidden_states"])


def _after_block(accumulator: _Accumulator, layer: int, module: nn.Module, args: Any, output: Any) -> None:
    accumulator.add(layer, output[0] if isinstance(output, tuple) else output)


# torch.compile must not trace this function: hooks added after a module was compiled are skipped without a
# word (torch._dynamo.config.skip_nnmodule_hook_guards), and every tap would be missing.
@torch.compiler.disable
def run_tower(
    tower: nn.Module,
    pixel_values: Tensor,
    taps: Sequence[Tap],
    *,
    num_layers: int,
    num_patches: int,
    pool: int = 1,
    **tower_kwargs: Any,
) -> VisionLayers:
    """Run the tower once and return the mean of each tap.

    Args:
        pixel_values: ``(I, 3, height, width)``.
        taps: the layer sets whose means are wanted.
        num_layers: ``L``.
        num_patches: ``N`` before pooling; whatever comes before the last ``N`` tokens is prefix.
        pool: side of the square of neighbouring patches averaged into one. Averaging commutes with the layer
            means and with any weighted sum of them, so pooling here or before the projector is the same.

    Raises:
        ValueError: the tower yields fewer tokens than ``num_patches``.
    """
    blocks = encoder_blocks(tower, num_layers)
    accumulator = _Accumulator(taps)
    with ExitStack() as hooks:
        first = blocks[0].register_forward_pre_hook(partial(_before_first_block, accumulator), with_kwargs=True)
        hooks.callback(first.remove)
        for layer, block in enumerate(blocks, start=1):
            hooks.callback(block.register_forward_hook(partial(_after_block, accumulator, layer)).remove)
        tower(pixel_values, **tower_kwargs)
    patches, descriptors = [], []
    for mean in accumulator.means():  # (I, P+N, D)
        prefix = mean.shape[1] - num_patches
        if prefix < 0:
            raise ValueError(
                f"the vision tower gave {mean.shape[1]} tokens for images of {tuple(pixel_values.shape[-2:])} "
                f"pixels, the configuration says {num_patches} patches"
            )
        grid = mean[:, prefix:]
        descriptors.append(mean[:, 0] if prefix else grid.mean(dim=1))
        patches.append(pool_patches(grid, pool))
    dtype = pixel_values.dtype
    return VisionLayers(torch.stack(patches, dim=1).to(dtype), torch.stack(descriptors, dim=1).to(dtype))


def pool_patches(patches: Tensor, pool: int) -> Tensor:
    """Average ``pool`` × ``pool`` neighbours: ``(I, N, D)`` → ``(I, N / pool², D)``; the grid is square."""
    if pool == 1:
        return patches
    images, count, width = patches.shape
    side = int(count**0.5)
    # (I, N, D) -> (I, side/pool, pool, side/pool, pool, D), then the mean over both pool axes
    blocks = patches.view(images, side // pool, pool, side // pool, pool, width)
    return blocks.mean(dim=(2, 4)).flatten(1, 2)

"""The contract every fusion keeps: layer means in, visual features out.

Letters: ``I`` images, ``T`` taps, ``K`` layer groups, ``N`` patches, ``D`` vision width, ``E`` instruction width.
"""

from __future__ import annotations

import difflib
from dataclasses import asdict, dataclass, fields
from math import isfinite
from types import UnionType
from typing import Any, ClassVar, Union, get_args, get_origin, get_type_hints

from torch import Tensor, nn

from .vision_layers import Tap, VisionLayers


@dataclass(frozen=True)
class FusionDims:
    """What a fusion may know of the model around it.

    Attributes:
        num_layers: ``L``, blocks of the vision tower.
        vision_dim: ``D``.
        num_patches: ``N``, patches after pooling.
        instruction_dim: ``E``, or None where the model has no instructions.
        text_dim: ``H``, width of the language model, or None where there is none.
        num_text_layers: layers of the language model, or None.
    """

    num_layers: int
    vision_dim: int
    num_patches: int
    instruction_dim: int | None
    text_dim: int | None = None
    num_text_layers: int | None = None


@dataclass
class FusionOutput:
    """What a fusion returns.

    Attributes:
        features: ``(I, N', D')``, what the projector reads.
        weights: ``(I, K)`` or ``(I, N, K)``, how the groups were mixed; None where nothing is weighed.
        aux_loss: a scalar to add to the training loss, already multiplied by its coefficient; None if there is none.
        injections: language-model layer (0 is the first) → ``(I, N', H)``, added to that layer's output at the places
            of the visual tokens; None if there are none.
    """

    features: Tensor
    weights: Tensor | None = None
    aux_loss: Tensor | None = None
    injections: dict[int, Tensor] | None = None


@dataclass
class FusionConfig:
    """Base of the small typed configs, one per method; ``fusion_kwargs`` of the model config fills it."""

    @classmethod
    def from_kwargs(cls, name: str, kwargs: dict[str, Any]) -> FusionConfig:
        """Check ``kwargs`` against the fields.

        Raises:
            ValueError: an unknown name (with the nearest right one), or a value of another type.
        """
        types = get_type_hints(cls)
        known = [field.name for field in fields(cls)]
        for key in kwargs:
            if key not in known:
                near = difflib.get_close_matches(key, known, n=1)
                hint = f"did you mean {near[0]!r}?" if near else f"it takes {known or 'no options'}"
                raise ValueError(f"fusion {name!r} has no option {key!r}: {hint}")
            if not _is_a(types[key], kwargs[key]):
                what = _TYPE_NAMES.get(types[key], str(types[key]))
                raise ValueError(f"fusion {name!r}: option {key!r} is {kwargs[key]!r}, expected {what}")
        return cls(**kwargs)

    def to_kwargs(self) -> dict[str, Any]:
        """The fields as plain JSON values."""
        return asdict(self)


_TYPE_NAMES = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}


def _is_a(kind: Any, value: Any) -> bool:
    """Whether a plain JSON value is of an annotated type: int, float, bool, str, None, and lists and unions of them."""
    origin, options = get_origin(kind), get_args(kind)
    if origin in (Union, UnionType):
        return any(_is_a(option, value) for option in options)
    if origin in (list, tuple):
        return isinstance(value, (list, tuple)) and all(_is_a(options[0], item) for item in value)
    if kind is float:
        return isinstance(value, (int, float)) and not isinstance(value, bool) and isfinite(value)
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool)
    return kind is Any or origin is not None or isinstance(value, kind)


class Fusion(nn.Module):
    """A way to turn layer means into the features the projector reads.

    A subclass sets ``config_class`` and ``needs_instruction``, decides ``taps``, ``output_dim`` and
    ``num_tokens`` in ``__init__`` from its config and ``dims`` alone, and writes ``forward``. A module of its own
    that holds parameters has ``reset_parameters()``: transformers calls it for what a checkpoint lacks.
    """

    config_class: ClassVar[type[FusionConfig]] = FusionConfig
    needs_instruction: ClassVar[bool] = False
    image_dependent: ClassVar[bool] = False  # whether the picture has a say in how its layers are mixed
    injects: ClassVar[bool] = False  # whether it adds features inside the language model (``FusionOutput.injections``)
    summary: ClassVar[str] = ""  # one line for tables and --help
    source: ClassVar[str] = ""  # where the method comes from

    taps: tuple[Tap, ...]
    output_dim: int  # D'
    num_tokens: int  # N', the only source of the number of image placeholders
    # The layer sets that ``weights`` speaks of, in their order; empty where the fusion has no weights.
    layer_groups: tuple[Tap, ...] = ()

    def __init__(self, config: Any, dims: FusionDims):
        super().__init__()
        self.config = config
        self.dims = dims
        if self.needs_instruction and dims.instruction_dim is None:
            raise ValueError(
                f"fusion {type(self).__name__} reads the instruction: give the model an instruction encoder "
                "or set instruction_dim"
            )

    def forward(self, layers: VisionLayers, instruction: Tensor | None) -> FusionOutput:
        """Mix.

        Args:
            layers: patches ``(I, T, N, D)`` and descriptors ``(I, T, D)``, in the order of ``taps``.
            instruction: ``(I, E)``; a row of zeros means "no instruction". None unless ``needs_instruction``.
        """
        raise NotImplementedError

    def fixed_blocks(self, weights: Tensor | None = None) -> Tensor | None:
        """The features as sums of the taps with constant factors, ``(blocks, T)``, where they are that.

        Channels ``b D`` to ``(b + 1) D`` of the features are then ``Σ_t m[b, t] tap_t``, so that a linear layer behind
        them can take the factors over.

        Args:
            weights: ``(K,)``, the weights of ``layer_groups`` held fixed; for fusions that set them anew each time.

        Returns:
            None: the features are no such sum, or not without ``weights``.
        """
        return None

"""What a fusion costs on a given model: tokens, parameters, floating-point operations; counted on the code itself."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from igva.errors import UserError
from igva.model.fusion_base import FusionDims
from igva.model.fusions import build_fusion, fusion_class
from igva.model.projector import Projector
from igva.model.vision_layers import VisionLayers


@dataclass(frozen=True)
class Setting:
    """A vision tower and the language model behind it.

    Attributes:
        text_parameters: of the language model: a further visual token costs about twice as many operations.
    """

    name: str
    dims: FusionDims
    text_parameters: int


# CLIP-L/14-336 and Vicuna-7B with all-mpnet-base-v2 (768 wide) are the paper's; so400m is counted with all 27 blocks.
_VICUNA = {"text_dim": 4096, "num_text_layers": 32}
SETTINGS = {
    "clip_l": Setting(
        "CLIP-L/14-336 + Vicuna-7B", FusionDims(24, 1024, 576, 768, **_VICUNA), text_parameters=6_738_415_616
    ),
    "siglip_so400m": Setting(
        "SigLIP-so400m/14-384 + Vicuna-7B", FusionDims(27, 1152, 729, 768, **_VICUNA), text_parameters=6_738_415_616
    ),
    "tiny": Setting(
        "tiny: DINOv2-S/14-224 + SmolLM2-135M", FusionDims(12, 384, 64, 384, 576, 30), text_parameters=134_515_008
    ),
}


@dataclass(frozen=True)
class Cost:
    """A fusion in numbers.

    Attributes:
        tokens: visual tokens per picture.
        parameters: of the fusion and of the projector's growth, beyond ``single``'s.
        flops: operations per picture of fusion and projector, beyond ``single``'s; a multiply-add counts two.
        text_flops: operations of the language model on the visual tokens beyond ``single``'s.
    """

    name: str
    needs_instruction: bool
    image_dependent: bool
    tokens: int
    parameters: int
    flops: int
    text_flops: int
    source: str


def fusion_cost(name: str, kwargs: dict[str, Any], setting: Setting) -> Cost:
    """Count a fusion against ``single`` in the same setting; nothing is allocated.

    Raises:
        UserError: the fusion does not exist or does not fit the setting.
    """
    try:
        tokens, parameters, flops = _count(name, kwargs, setting)
    except ValueError as error:
        raise UserError(str(error)) from error
    base_tokens, base_parameters, base_flops = _count("single", {}, setting)
    cls = fusion_class(name)
    return Cost(
        name=name,
        needs_instruction=cls.needs_instruction,
        image_dependent=cls.image_dependent,
        tokens=tokens,
        parameters=parameters - base_parameters,
        flops=flops - base_flops,
        text_flops=2 * setting.text_parameters * (tokens - base_tokens),
        source=cls.source,
    )


def _count(name: str, kwargs: dict[str, Any], setting: Setting) -> tuple[int, int, int]:
    """Tokens, and the parameters and operations of fusion and projector for one picture."""
    dims = setting.dims
    with torch.device("meta"), torch.no_grad():
        fusion = build_fusion(name, kwargs, dims).eval()
        width = dims.text_dim or dims.vision_dim
        projector = Projector(fusion.output_dim, width, width, "gelu", bias=True, norm=False)
        taps = len(fusion.taps)
        layers = VisionLayers(
            torch.zeros(1, taps, dims.num_patches, dims.vision_dim), torch.zeros(1, taps, dims.vision_dim)
        )
        instruction = torch.zeros(1, dims.instruction_dim or 1) if fusion.needs_instruction else None
        with FlopCounterMode(display=False) as counter:
            projector(fusion(layers, instruction).features)
    parameters = sum(p.numel() for module in (fusion, projector) for p in module.parameters())
    return fusion.num_tokens, parameters, counter.get_total_flops()

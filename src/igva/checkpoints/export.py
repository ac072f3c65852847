"""An IGVA model → a stock LLaVA of transformers, where nothing but fixed factors decides how the layers are mixed.

LLaVA reads a list of layers side by side, so a mixture with fixed factors moves into the projector's first matrix:
``W [Σ_l c_1l h_l, …] = [Σ_b c_bl W_b]_l [h_l]_l``.

Letters: ``K`` layer groups, ``T`` taps, ``L`` layers that are read, ``D`` vision width, ``H`` language-model width.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from transformers import LlavaConfig, LlavaForConditionalGeneration, LlavaProcessor
from transformers.models.llava.image_processing_pil_llava import LlavaImageProcessorPil

from igva.errors import UserError
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.model.vision_ensemble import EnsembleVisionConfig
from igva.model.vision_layers import position_arguments

# LLaVA's strategy → tokens before the patches that it leaves out.
STRATEGIES = {0: "full", 1: "default"}
# Largest difference of a visual token, by the largest value of any, between the two models.
TOLERANCE = {torch.float32: 1e-4, torch.float16: 2e-2, torch.bfloat16: 5e-2}
SUM_TOLERANCE = 1e-3  # of a mixture's weights, which files round


@dataclass
class Export:
    """A stock LLaVA.

    Attributes:
        model, processor: of transformers' own classes.
        layers: hidden states that it reads, in their order.
        notes: what is not as it was, one line each.
    """

    model: LlavaForConditionalGeneration
    processor: LlavaProcessor
    layers: list[int]
    notes: list[str] = field(default_factory=list)

    def save(self, folder: Path) -> None:
        """Write model and processor into ``folder``."""
        self.model.save_pretrained(folder)
        self.processor.save_pretrained(folder)


def export_llava(
    model: IgvaForConditionalGeneration, processor: IgvaProcessor, mixture: Tensor | str | None = None
) -> Export:
    """Fold a model's mixture into its projector: the same answers from a ``LlavaForConditionalGeneration``.

    Args:
        model: on the CPU; its weights are shared with what is returned, but for the projector's.
        mixture: for fusions that set their weights by question or picture, the weights ``(K,)`` that are to stand
            for all, or ``"uniform"``.

    Raises:
        UserError: the model is none that a LLaVA can be; the message names each setting that stands in the way.
    """
    fusion, config = model.model.fusion, model.config
    prefix = _prefix_tokens(model)
    weights = _weights(model, mixture)
    blocks = fusion.fixed_blocks(weights)
    _refuse(model, prefix, blocks)
    assert blocks is not None
    layers, factors = layer_factors(blocks, fusion.taps)
    old = model.model.projector.linear_1.weight.detach()
    tensors = {
        name.replace("model.projector.", "model.multi_modal_projector."): tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith(("model.fusion.", "model.instruction_encoder."))
    }
    new = folded(old, factors)
    tensors["model.multi_modal_projector.linear_1.weight"] = new
    llava_config = LlavaConfig(
        vision_config=deepcopy(config.vision_config),  # transformers writes into what a model is built from
        text_config=deepcopy(config.text_config),
        image_token_index=config.image_token_id,
        image_seq_length=fusion.num_tokens,
        projector_hidden_act=config.projector_hidden_act,
        vision_feature_select_strategy=STRATEGIES[prefix],
        # transformers 5.23 takes the number 0 alone for no layer at all
        vision_feature_layer=layers[0] if len(layers) == 1 and layers[0] else layers,
        multimodal_projector_bias=config.projector_bias,
        tie_word_embeddings=config.tie_word_embeddings,
    )
    llava = LlavaForConditionalGeneration.from_pretrained(
        None, config=llava_config, state_dict=tensors, dtype=model.dtype
    ).eval()
    llava.generation_config = deepcopy(model.generation_config)
    _check_same(model, llava, weights)
    stock = stock_processor(model, processor, prefix)
    _check_pixels(processor, stock)
    notes = [f"the projector's first matrix had {old.numel():,} numbers and has {new.numel():,}"]
    if weights is not None:
        shown = ", ".join(f"{weight:.3f}" for weight in weights.tolist())
        notes.append(f"the guide is gone: every question gets the weights {shown}")
    notes.append(
        "LLaVA's processor neither keeps typed special tokens apart from real ones, nor turns pictures by their "
        "EXIF tag: igva's does"
    )
    return Export(llava, stock, layers, notes)


def layer_factors(blocks: Tensor, taps: tuple[tuple[int, ...], ...]) -> tuple[list[int], Tensor]:
    """Factors of the taps ``(blocks, T)`` → the layers that are read, and theirs: ``(blocks, L)``.

    A tap is the mean of its layers, so each of them gets its share. Layers without a factor are left out.
    """
    every = sorted({layer for tap in taps for layer in tap})
    factors = torch.zeros(blocks.shape[0], len(every))
    for t, tap in enumerate(taps):
        for layer in tap:
            factors[:, every.index(layer)] += blocks[:, t] / len(tap)
    used = factors.abs().amax(dim=0).gt(0).nonzero().flatten().tolist()
    return [every[i] for i in used], factors[:, used]


def folded(weight: Tensor, factors: Tensor) -> Tensor:
    """A matrix behind the blocks ``(H, blocks·D)``, as one behind the layers side by side ``(H, L·D)``."""
    parts = weight.float().unflatten(1, (factors.shape[0], -1))  # (H, blocks, D)
    return torch.einsum("hbd,bl->hld", parts, factors).flatten(1).to(weight.dtype).contiguous()


def stock_processor(model: IgvaForConditionalGeneration, processor: IgvaProcessor, prefix: int) -> LlavaProcessor:
    """A ``LlavaProcessor`` that makes the same tensors of an upright RGB picture and a chat."""
    images = processor.image_processor
    if processor.pad_images:
        settings = {k: v for k, v in images.to_dict().items() if k not in ("image_processor_type", "do_pad")}
        # SigLIP's and ViT's do not know of crops; LLaVA's own default is one of 224 pixels.
        images = LlavaImageProcessorPil(**{"do_center_crop": False, **settings}, do_pad=True)
    tokenizer = deepcopy(processor.tokenizer)
    tokenizer.padding_side = "left"  # as igva's processor pads, whatever the tokenizer says: answers come behind
    return LlavaProcessor(
        images,
        tokenizer,
        patch_size=int(model.config.vision.patch_size),
        vision_feature_select_strategy=STRATEGIES[prefix],
        num_additional_image_tokens=prefix,
        image_token=processor.image_token,
        chat_template=items_template(processor),
    )


# A template that wants a string, or text items alone, gets what ``IgvaProcessor.render`` would give it.
_AS_TEXT = """\
{%- set ns = namespace(messages=[]) -%}
{%- for message in messages -%}
{%- set ns.parts = [] -%}
{%- set content = message['content'] -%}
{%- for item in ([dict(type='text', text=content)] if content is string else content) -%}
{%- set text = IMAGE if item['type'] == 'image' else item['text'] -%}
{%- set ns.parts = ns.parts + [PART] -%}
{%- endfor -%}
{%- set ns.messages = ns.messages + [dict(message, content=CONTENT)] -%}
{%- endfor -%}
{%- set messages = ns.messages -%}
"""


def items_template(processor: IgvaProcessor) -> str | None:
    """The chat template, for a processor that hands it pictures and texts as typed items."""
    template = processor.chat_template or processor.tokenizer.chat_template
    form = processor.template_form(template) if template else "items"
    if form == "items":
        return template
    part, content = (
        ("text", "ns.parts | join('\\n')") if form == "text" else ("dict(type='text', text=text)", "ns.parts")
    )
    head = _AS_TEXT.replace("IMAGE", json.dumps(processor.image_token)).replace("PART", part)
    return head.replace("CONTENT", content) + template


# --- the mixture --------------------------------------------------------------------------------------------------


def read_mixture(said: str, study: Path | None = None) -> Tensor | str:
    """What ``--mixture`` says → weights ``(K,)``, or ``"uniform"``.

    Args:
        said: ``uniform``; a JSON file with a list of numbers; a file ``weights.jsonl`` of ``igva study weights``, for
            the mean over its questions; or ``task:NAME``, for the mean over those of one task of ``study``.
        study: the ``weights.jsonl`` that ``task:NAME`` is looked up in, or the folder it lies in.

    Raises:
        UserError: no such file or task, or numbers that are no weights.
    """
    task = said.removeprefix("task:") if said.startswith("task:") else None
    if task is None and study is not None:
        raise UserError(f"--weights is for --mixture task:NAME, not for {said}: leave it out")
    if said == "uniform":
        return said
    if task is not None and study is None:
        raise UserError(
            "--mixture task:NAME reads the weights of a study: run `igva study weights --model … --out runs/weights`, "
            "then add --weights runs/weights"
        )
    path = Path(said) if task is None else study
    assert path is not None
    path = path / "weights.jsonl" if path.is_dir() else path
    if not path.is_file():
        raise UserError(f"there is no file {path}: --mixture takes uniform, a file, or task:NAME with --weights")
    try:
        if path.suffix != ".jsonl":
            return _checked(json.loads(path.read_text()), str(path))
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        tasks = sorted({row["task"] for row in rows if "task" in row})
        if task is not None and task not in tasks:
            raise UserError(f"{path} has no questions of task {task!r}; it has {', '.join(tasks) or 'no tasks'}")
        chosen = [row["weights"] for row in rows if task in (None, row.get("task"))]
        return _checked(torch.tensor(chosen, dtype=torch.float64).mean(dim=0).tolist(), str(path))
    except (ValueError, TypeError, KeyError, AttributeError, OverflowError, OSError) as error:
        raise UserError(f"{path} holds no weights: a JSON list of numbers, one per layer group, is expected") from error


def _checked(numbers: Any, origin: str) -> Tensor:
    if not isinstance(numbers, list) or not numbers or not all(type(n) in (int, float) for n in numbers):
        raise ValueError
    weights = torch.tensor(numbers, dtype=torch.float64)
    total = float(weights.sum())
    if not bool(weights.isfinite().all()) or float(weights.min()) < 0 or abs(total - 1) > SUM_TOLERANCE:
        raise UserError(
            f"{origin}: the weights {numbers} are no mixture: none below 0, and a sum of 1 (it is {total:g})"
        )
    return (weights / total).float()


def _weights(model: IgvaForConditionalGeneration, mixture: Tensor | str | None) -> Tensor | None:
    """The weights to hold fixed; None for fusions whose mixture is fixed anyway."""
    fusion, name = model.model.fusion, model.config.fusion
    if not (fusion.needs_instruction or fusion.image_dependent):
        if mixture is not None:
            raise UserError(f"fusion {name} mixes every picture alike already: leave --mixture out")
        return None
    count = len(fusion.layer_groups)
    if fusion.fixed_blocks(torch.full((count,), 1.0)) is None:
        return None  # no mixture can be taken over: refused by name later
    if mixture is None:
        raise UserError(
            f"fusion {name} sets its weights anew for each question, a LLaVA cannot: choose what it gets for all of "
            "them with --mixture uniform, FILE or task:NAME"
        )
    if isinstance(mixture, str) and mixture != "uniform":
        raise UserError(f"there is no mixture {mixture!r}: say uniform, or give the weights")
    weights = torch.full((count,), 1.0 / count) if isinstance(mixture, str) else mixture
    if len(weights) != count:
        raise UserError(f"the mixture has {len(weights)} weights, the model {count} layer groups")
    return weights


# --- what stands in the way ---------------------------------------------------------------------------------------


def _refuse(model: IgvaForConditionalGeneration, prefix: int, blocks: Tensor | None) -> None:
    config = model.config
    text = config.text_config.hidden_size
    reasons: dict[str, bool] = {
        "vision ensemble (several encoders)": isinstance(config.vision_config, EnsembleVisionConfig),
        f"fusion {config.fusion} (no sum of layers with fixed factors)": blocks is None,
        "normalize_layers": config.normalize_layers,
        "projector_norm": config.projector_norm,
        "visual_positions": config.visual_positions,
        f"vision_pool {config.vision_pool}": config.vision_pool != 1,
        f"projector_hidden_size {config.projector_hidden_size} (a LLaVA has {text})": config.projector_hidden_size
        not in (None, text),
        f"image_size {config.image_size} (its vision tower was made for {config.vision.image_size})": bool(
            position_arguments(config.vision, config.input_size)
        ),
        f"{prefix} tokens before the patches of {config.vision.model_type}": prefix not in STRATEGIES,
    }
    if found := [reason for reason, stands in reasons.items() if stands]:
        raise UserError(f"a stock LLaVA cannot say what this model says: {'; '.join(found)}")


def _prefix_tokens(model: IgvaForConditionalGeneration) -> int:
    """Tokens that the vision tower gives before its patches."""
    vision = model.config.vision
    if isinstance(vision, EnsembleVisionConfig):
        return 0
    extra = position_arguments(vision, model.config.input_size)
    tower: Callable[..., Any] = model.model.vision_tower
    with torch.no_grad():
        tokens = tower(_noise(model)[:1], **extra).last_hidden_state.shape[1]
    return int(tokens) - model.config.num_patches


def _noise(model: IgvaForConditionalGeneration) -> Tensor:
    """Two pictures of nothing, the same each time: ``(2, 3, side, side)``."""
    side = model.config.input_size
    pixels = torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))
    return pixels.to(model.dtype)


@torch.no_grad()
def _check_same(model: IgvaForConditionalGeneration, llava: Any, weights: Tensor | None) -> None:
    """See that both say the same of two pictures, as deep as the visual tokens go.

    Args:
        weights: those held fixed, ``(K,)``; None where the fusion needs none.

    Raises:
        UserError: they do not, as where a tower shows transformers another last layer than its blocks give.
    """
    pixels = _noise(model)
    fusion: Any = model.model.fusion
    layers = model.model.encode_image_layers(pixels)
    if weights is None:
        features = fusion(layers, None).features
    else:
        features = fusion.mix(layers, weights.to(pixels.dtype).expand(len(pixels), -1))
    ours = model.model.projector(features)
    theirs = torch.stack(list(llava.get_image_features(pixel_values=pixels).pooler_output))
    off = float((ours - theirs).float().abs().max() / ours.float().abs().max())
    if not off <= TOLERANCE.get(model.dtype, 1e-4):
        raise UserError(
            f"the LLaVA does not see what the model sees (visual tokens differ by {off:.0e} of the largest): "
            "nothing was written"
        )


def _check_pixels(processor: IgvaProcessor, stock: LlavaProcessor) -> None:
    """See that both prepare a wide picture alike.

    Raises:
        UserError: they do not, as where an image processor has settings that LLaVA's does not know.
    """
    picture = Image.effect_noise((90, 60), 80).convert("RGB")
    ours = processor.prepare_images([picture])
    theirs = stock.image_processor([picture], return_tensors="pt")["pixel_values"]
    if ours.shape != theirs.shape or not torch.allclose(ours.float(), theirs.float(), atol=1e-3):
        kind = type(processor.image_processor).__name__
        raise UserError(f"LLaVA's image processor does not make of a picture what {kind} makes: nothing was written")

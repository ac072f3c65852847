"""Which parameters a stage trains, and at which learning rate."""

from __future__ import annotations

from typing import Any

from peft import LoraConfig, inject_adapter_in_model
from torch import nn

from igva.train.arguments import LoraArguments, OptimArguments, Recipe

# The towers have layers of the same names (q_proj, …), so the adapters are bound to the language model by pattern.
LORA_TARGETS = r"model\.language_model\..*\.(q_proj|k_proj|v_proj|o_proj|gate_proj|up_proj|down_proj)"


def set_trainable(model: Any, recipe: Recipe) -> None:
    """Freeze everything, then open what the recipe trains; the sentence encoder always stays frozen.

    What is trained is kept in float32 whatever the rest is: small steps would vanish in bfloat16.
    """
    model.requires_grad_(False)
    inner, trains = model.model, recipe.trains()
    if "text" in trains and recipe.lora.rank:
        add_lora(model, recipe.lora)  # first: PEFT freezes everything but its own factors
    elif "text" in trains:
        inner.language_model.requires_grad_(True)
        model.lm_head.requires_grad_(True)
    for part, module in (("vision", inner.vision_tower), ("fusion", inner.fusion), ("projector", inner.projector)):
        if part in trains:
            module.requires_grad_(True)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()


def add_lora(model: nn.Module, lora: LoraArguments) -> None:
    """Put adapters into the language model, in place."""
    inject_adapter_in_model(
        LoraConfig(r=lora.rank, lora_alpha=lora.alpha, lora_dropout=lora.dropout, target_modules=LORA_TARGETS),
        model,
    )


def lora_scale(lora: LoraArguments) -> float:
    """What the product of the two factors is multiplied by."""
    return lora.alpha / lora.rank if lora.rank else 0.0


def parameter_groups(model: nn.Module, optim: OptimArguments) -> list[dict[str, Any]]:
    """The trainable parameters as optimizer groups: vision tower, fusion, projector, and the rest."""
    rates = {"vision_tower": optim.vision_lr, "fusion": optim.fusion_lr, "projector": optim.projector_lr, "text": None}
    groups: dict[str, list[nn.Parameter]] = {name: [] for name in rates}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            part = name.removeprefix("module.").removeprefix("model.").split(".")[0]
            groups[part if part in groups else "text"].append(parameter)
    return [
        {
            "params": parameters,
            "lr": rates[name] if rates[name] is not None else optim.learning_rate,
            "name": name,
        }
        for name, parameters in groups.items()
        if parameters
    ]


def describe(model: Any) -> list[str]:
    """One line per part: parameters in all and trained."""
    parts = {
        "vision tower": model.model.vision_tower,
        "instruction encoder": model.model.instruction_encoder,
        "fusion": model.model.fusion,
        "projector": model.model.projector,
        "language model": model.model.language_model,
    }
    lines = []
    for name, module in parts.items():
        if module is None:
            continue
        total = sum(p.numel() for p in module.parameters())
        trained = sum(p.numel() for p in module.parameters() if p.requires_grad)
        lines.append(f"{name:20s} {total:>13,} parameters, {trained:>12,} trained")
    return lines

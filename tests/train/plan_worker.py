"""Trains two steps for real, on the CPU, and prints the most memory that the second took: for ``test_plan.py``.

The figure is the peak of the resident set (Linux keeps it in ``VmHWM``, and forgets it when asked to) minus what the
process held before the model was there. Resident memory is what runs out in practice, and it counts what kernels take
beside the tensors, which PyTorch's own memory events do not. It follows the tensors only if freed ones go back to the
system at once: ``MALLOC_MMAP_THRESHOLD_`` makes glibc map every larger tensor by itself, and ``MALLOC_TRIM_THRESHOLD_``
gives back the rest. The first step, and a small model before, keep one-time costs (threads, kernels, optimizer states)
out of the second.
"""

import json
import re
import sys
from pathlib import Path

import torch
from transformers import TrainerCallback

from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.train.arguments import Recipe, load_recipe
from igva.train.plan import planned_model, worst_step
from igva.train.run import _arguments
from igva.train.stages import set_trainable
from igva.train.trainer import IgvaTrainer


def resident(field: str) -> int:
    """Bytes: ``VmRSS`` now, ``VmHWM`` at the most."""
    return int(re.search(rf"{field}:\s+(\d+) kB", Path("/proc/self/status").read_text())[1]) * 1024


class Meter(TrainerCallback):
    """The peak of the second step."""

    peak = 0

    def on_step_begin(self, args, state, control, **kwargs):
        Path("/proc/self/clear_refs").write_text("5")

    def on_step_end(self, args, state, control, **kwargs):
        if state.global_step == 2:
            self.peak = resident("VmHWM")


class Batches(torch.utils.data.Dataset):
    """Samples of full length: their pictures, then text, all of it learnt."""

    def __init__(self, model, recipe, step):
        self.model, self.recipe, self.step = model, recipe, step

    def __len__(self):
        return 1000

    def lengths(self):
        return [self.step.tokens] * len(self)

    def modalities(self):
        return [True] * len(self)

    def __getitem__(self, index):
        return {}

    def collate(self, samples):
        count, fusion = len(samples), self.model.model.fusion
        visual = fusion.num_tokens
        ids = torch.full((count, self.step.tokens), 5)
        ids[:, :visual] = self.model.config.image_token_id
        labels = ids.masked_fill(torch.arange(self.step.tokens) < visual, -100)
        mask = torch.ones_like(ids)
        mask[0, -1:] = int(count == 1)  # samples of a batch differ in length
        batch = {"input_ids": ids, "labels": labels, "attention_mask": mask, "ids": ["a"] * count}
        batch["sources"] = ["a"] * count
        if self.recipe.data.cache_features:
            shape = (count, len(fusion.taps), fusion.dims.num_patches, fusion.dims.vision_dim)
            batch["layer_patches"] = torch.randn(shape).bfloat16()
            batch["layer_descriptors"] = batch["layer_patches"][:, :, 0].clone()
        else:
            batch["pixel_values"] = torch.randn(count, 3, *[self.model.config.input_size] * 2)
        batch["instruction_embeds"] = torch.randn(count, fusion.dims.instruction_dim)
        return batch


def train(recipe: Recipe) -> int:
    shape = planned_model(recipe)
    step = worst_step(recipe, shape.model.fusion.num_tokens, 1, devices=1, gpu=False)
    model = IgvaForConditionalGeneration(shape.config).to(getattr(torch, recipe.model.dtype))
    set_trainable(model, recipe)
    data, meter = Batches(model, recipe, step), Meter()
    arguments = _arguments(recipe, step.samples, step.accumulate, validate=False)
    arguments.save_strategy = "no"
    IgvaTrainer(
        model=model, args=arguments, train_dataset=data, data_collator=data.collate, recipe=recipe, callbacks=[meter]
    ).train()
    return meter.peak


def main() -> None:
    torch.set_num_threads(2)
    path, small, *overrides = sys.argv[1:]
    steps = "optim.max_steps=2"
    train(load_recipe(small, [*overrides, steps]))
    base = resident("VmRSS")
    print(json.dumps({"base": base, "peak": train(load_recipe(path, [*overrides, steps])) - base}))


if __name__ == "__main__":
    main()

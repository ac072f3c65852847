"""One process of a test with several: started by ``torchrun`` from ``test_distributed.py``.

``distributed_worker.py FOLDER JOB…`` runs jobs one after another; a job is ``NAME [key=value …]`` in one argument. Each
trains by FOLDER/recipe.yaml into FOLDER/NAME and writes to FOLDER/NAME.pt what the first process saw: the loss of every
step, the first step's gradients, the types of things. ``NAME --back=N …`` goes back to checkpoint N of that run, keeps
what it had trained as FOLDER/NAME.safetensors, and resumes. Of a run with a warm-up of the allocator, in which every
process sees other questions, FOLDER/NAME-RANK-warmed.pt has the fusion behind it.
"""

import atexit
import os
import shutil
import sys
from pathlib import Path

import torch
import torch.distributed as dist
from torch.distributed.tensor import DTensor

from igva.train import allocator_warmup
from igva.train import run as module
from igva.train.arguments import load_recipe
from igva.train.distributed import leave_processes, world_size
from igva.train.snapshots import snapshots
from igva.train.trainer import IgvaTrainer

SEEN: dict = {}
BATCHES, WARM_UP = allocator_warmup.endless_batches, module.warm_up_allocator


class Watched(IgvaTrainer):
    """Notes what goes through it."""

    def compute_loss(self, model, inputs, *args, **kwargs):
        SEEN["ids"].append(list(inputs["ids"]))
        SEEN["dummies"] += bool(inputs.get("dummy_image"))
        SEEN["types"].add(type(model).__name__)
        SEEN["types"].add(str(self.accelerator.distributed_type))
        SEEN["dtensors"] = sum(isinstance(p, DTensor) for p in self.model.parameters())
        SEEN["partitioned"] = sum(hasattr(p, "ds_id") for p in self.model.parameters())
        loss = super().compute_loss(model, inputs, *args, **kwargs)
        # A device's loss is its share of the step times the number of devices.
        share = loss.detach().clone() / world_size()
        if world_size() > 1:
            dist.all_reduce(share)
        SEEN["losses"].append(share.item())
        return loss

    def _clip_grad_norm(self, model):
        if not SEEN["gradients"]:
            for name, parameter in self.model.named_parameters():
                if parameter.grad is not None:
                    gradient = parameter.grad
                    gradient = gradient.full_tensor() if isinstance(gradient, DTensor) else gradient
                    SEEN["gradients"][name] = gradient.detach().clone()
        return super()._clip_grad_norm(model)


def watch_warm_up(folder, name):
    """Have every process see other questions, as none does, so that only a broadcast makes their fusions one."""
    rank = int(os.environ.get("RANK", 0))

    def warmed(model, *args, **kwargs):
        found = WARM_UP(model, *args, **kwargs)
        fusion = {key: value.detach().clone() for key, value in model.model.fusion.named_parameters()}
        torch.save(fusion, folder / f"{name}-{rank}-warmed.pt")
        return found

    allocator_warmup.endless_batches = lambda questions, size, seed: BATCHES(questions, size, seed + rank)
    module.warm_up_allocator = warmed


def main(folder, *jobs):
    torch.set_num_threads(1)
    module.IgvaTrainer = Watched
    for job in jobs:
        name, *options = job.split()
        do(Path(folder), name, options)
    if world_size() > 1:
        atexit.register(Path(folder, f"left-{dist.get_rank()}").touch)
    leave_processes()
    Path(folder, f"still-there-{os.environ.get('RANK', 0)}").touch()


def do(folder, name, options):
    SEEN.clear()
    SEEN.update(losses=[], ids=[], gradients={}, types=set(), dummies=0)
    back = [int(option.removeprefix("--back=")) for option in options if option.startswith("--back=")]
    if back:
        if dist.get_rank() == 0:
            for checkpoint in snapshots(folder / name)[back[0] :]:
                shutil.rmtree(checkpoint)
            shutil.move(folder / name / "trained.safetensors", folder / f"{name}.safetensors")
        dist.barrier()
    if any(option.startswith("allocator.steps") for option in options):
        watch_warm_up(folder, name)
    overrides = [f"output={folder / name}", *(option for option in options if not option.startswith("--"))]
    module.run(load_recipe(str(folder / "recipe.yaml"), overrides), bool(back))
    if world_size() > 1:
        SEEN["by_rank"] = [None] * world_size()
        dist.all_gather_object(SEEN["by_rank"], (SEEN["ids"], SEEN["dummies"]))
    if not back and (world_size() == 1 or dist.get_rank() == 0):
        torch.save(SEEN, folder / f"{name}.pt")


if __name__ == "__main__":
    main(*sys.argv[1:])

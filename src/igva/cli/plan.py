"""``igva plan RECIPE [key=value …]``: memory, disk and time of a run, and what makes it fit a GPU."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from igva.train.arguments import Recipe
    from igva.train.fit import Fit
    from igva.train.plan import Plan

HELP = "say what a recipe takes in memory, disk and time, before anything is loaded"
EXAMPLES = """\
igva plan llava15_7b_instruct --devices 8 --gpu-memory 80
igva plan tiny_instruct --cpu"""
GIB = 2**30


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a packaged recipe (tiny_align, tiny_instruct) or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the recipe's")
    parser.add_argument("--gpu-memory", type=_positive, metavar="GIB", help="find the cheapest settings that fit this")
    parser.add_argument("--samples", type=_count, metavar="N", help="of the training data; default: counted if local")
    parser.add_argument("--devices", type=_count, default=1, metavar="N", help="that share the work (default: 1)")
    parser.add_argument("--tflops", type=_positive, metavar="T", help="sustained by a device, for the time")
    parser.add_argument("--cpu", action="store_true", help="plan for training on the CPU")
    parser.add_argument("--json", action="store_true", help="print one JSON object, sizes in bytes")


def _positive(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value


def _count(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is less than 1")
    return value


def main(args: argparse.Namespace) -> None:
    from tqdm import tqdm
    from transformers.utils import logging

    from igva.train.arguments import load_recipe

    recipe = load_recipe(args.recipe, args.overrides)
    logging.set_verbosity_error()
    from igva.train.fit import find_fit
    from igva.train.plan import data_mix, make_plan

    with tqdm(desc="planning", unit=" trial", delay=2, leave=False) as bar:
        mix = data_mix(recipe, args.samples)
        plan = make_plan(recipe, mix, devices=args.devices, tflops=args.tflops, gpu=not args.cpu, tick=bar.update)
        fit = None
        if args.gpu_memory:
            fit = find_fit(
                lambda extra: load_recipe(args.recipe, [*args.overrides, *extra]),
                mix,
                args.gpu_memory * GIB,
                args.devices,
                bar.update,
            )
    if args.json:
        _print_json(plan, fit)
        return
    _print_plan(args, recipe, plan)
    if fit:
        print()
        _print_fit(args, fit)


def _print_json(plan: Plan, fit: Fit | None) -> None:
    import dataclasses
    import json

    content: dict[str, Any] = dataclasses.asdict(plan)
    content["memory"]["total"] = plan.memory.total
    if fit:
        content["fit"] = dataclasses.asdict(fit)
        content["fit"]["memory"]["total"] = fit.memory.total
    print(json.dumps(content, indent=2))


def _print_plan(args: argparse.Namespace, recipe: Recipe, plan: Plan) -> None:
    from igva.train.memory import Memory

    step, disk, time = plan.step, plan.disk, plan.time
    print(f"{args.recipe}: a step of {recipe.optim.batch_size} samples; on each of {step.devices} device(s) ", end="")
    print(f"{step.samples} at a time, {step.tokens} tokens and {step.pictures} picture(s) each")
    print(f"\n{'parameters':22s} {'all':>15s} {'trained':>15s}")
    for part, (total, trained) in plan.parameters.items():
        print(f"{part:22s} {total:15,} {trained:15,}")
    totals = [sum(column) for column in zip(*plan.parameters.values(), strict=True)]
    print(f"{'total':22s} {totals[0]:15,} {totals[1]:15,}")
    print(f"\n{'memory per device':22s} {'GiB':>15s}")
    for kind in Memory.KINDS:
        _print_gib(kind, getattr(plan.memory, kind))
    if recipe.optim.max_steps == 0:
        print("(max_steps is 0: only the warm-up runs, which takes less than such a step)")
    print(f"\n{'disk':22s} {'GiB':>15s}")
    _print_gib(f"{recipe.optim.keep_checkpoints} + 1 checkpoints", disk.checkpoints)
    _print_gib("trained.safetensors", disk.trained)
    _print_gib("exported model", disk.export)
    _print_gib("cached features", disk.features)
    print(f"\n{'time, an estimate':22s}")
    _print_number("steps", time.steps, ",")
    _print_number("TFLOP per step", time.step_tflop, ",.2f")
    _print_number("TFLOP/s per device", time.tflops, ",.3g", _speed(args))
    _print_number("hours", time.hours, ",.2f", _length(plan))


def _speed(args: argparse.Namespace) -> str:
    if args.tflops:
        return "as given"
    return "measured here: half of what matrix products reach" if args.cpu else "assumed: --tflops sets it"


def _length(plan: Plan) -> str:
    tokens = plan.mix.text_tokens
    return "samples of full length" if tokens is None else f"samples of {tokens} text tokens on average"


def _print_gib(name: str, size: int | None) -> None:
    _print_number(name, None if size is None else size / GIB, ",.2f")


def _print_number(name: str, value: float | None, form: str, note: str = "") -> None:
    if value is None:
        note = "set --samples: the data cannot be counted here"
    text = "?" if value is None else format(value, form)
    print(f"{name:22s} {text:>15s}" + (f"  ({note})" if note else ""))


def _print_fit(args: argparse.Namespace, fit: Fit) -> None:
    from igva.train.fit import ROOM

    size = f"{fit.memory.total / GIB:.1f} GiB"
    limit = f"{ROOM:.0%} of {args.gpu_memory:g} GiB"
    settings = " ".join([*args.overrides, *fit.overrides])
    start = "igva train" if fit.devices == 1 else f"torchrun --nproc_per_node {fit.devices} -m igva train"
    if not fit.fits:
        print(f"nothing fits {limit}; the least is {size} per device, with")
    elif fit.overrides:
        print(f"fits {limit} with {size} per device:")
    else:
        print(f"fits {limit} as it is, with {size} per device:")
    print(f"  {start} {args.recipe} {settings}".rstrip())

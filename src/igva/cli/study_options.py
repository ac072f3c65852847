"""What the studies that train have in common: encoders, data, budget, and the two ways to run them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Any

from igva.cli.counts import at_least_one

if TYPE_CHECKING:
    from igva.data.questions import Question
    from igva.study.readout import ReadoutSettings


def add_study_arguments(
    parser: argparse.ArgumentParser, *, steps: int, batch_size: int, width: int, blocks: int
) -> None:
    """Options of both studies; the numbers are the readout's defaults."""
    data = parser.add_argument_group("data")
    data.add_argument(
        "--train", required=True, metavar="FILE", help="LLaVA JSON, as `igva probe build` writes data.json"
    )
    data.add_argument("--test", required=True, metavar="FILE", help="questions.json, or LLaVA JSON")
    data.add_argument("--out", required=True, metavar="DIR", help="runs, tables, pictures, report.html; resumes there")
    data.add_argument("--category-field", default="category", metavar="NAME", help="field that names the category")
    data.add_argument("--train-limit", type=int, metavar="N", help="train on N questions, as alike per task as they go")
    data.add_argument("--test-limit", type=int, metavar="N", help="test on N questions")
    parts = parser.add_argument_group("encoders")
    parts.add_argument("--model", metavar="NAME_OR_PATH", help="take the encoders of an igva model (default: tiny)")
    parts.add_argument("--vision", metavar="PATH", help="or a vision encoder: folder, hub id, embedded:vision")
    parts.add_argument(
        "--instruction", default="embedded:instruction", metavar="PATH", help="sentence encoder beside it"
    )
    parts.add_argument("--image-size", type=int, metavar="PX", help="side of the input, with --vision")
    parts.add_argument("--pool", type=int, default=1, metavar="P", help="average P×P patches into one, with --vision")
    parts.add_argument(
        "--normalize-layers", action="store_true", help="layer means of like size for every fusion, with --vision"
    )
    parts.add_argument("--device", help="cpu, cuda, cuda:N or mps: where the tower runs")
    readout = parser.add_argument_group("readout (no language model)")
    readout.add_argument("--steps", type=int, default=steps, metavar="N", help=f"training steps (default {steps})")
    readout.add_argument("--cells", metavar="FILE", help="cells.json beside the training data, for the warm-up")
    readout.add_argument("--warm-up-steps", type=int, metavar="N", help="on cells first (default with --cells: 400)")
    readout.add_argument("--batch-size", type=int, default=batch_size, metavar="N", help=f"(default {batch_size})")
    readout.add_argument("--learning-rate", type=float, default=1e-3, metavar="LR", help="(default 1e-3)")
    readout.add_argument("--fusion-lr", type=float, default=3e-4, metavar="LR", help="of the fusion (default 3e-4)")
    readout.add_argument("--width", type=int, default=width, metavar="W", help=f"readout width (default {width})")
    readout.add_argument("--blocks", type=int, default=blocks, metavar="N", help=f"attention blocks (default {blocks})")
    readout.add_argument("--seeds", type=int, metavar="N", help="runs of each, with seeds 0 to N-1")
    full = parser.add_argument_group("whole models instead (the paper's way)")
    full.add_argument(
        "--recipe", action="append", default=[], metavar="R", help="train by this recipe; repeat for stages"
    )
    full.add_argument(
        "--set", action="append", default=[], metavar="key=value", help="settings that replace the recipes'"
    )


def check_counts(args: argparse.Namespace) -> None:
    """Raise ``UserError`` for a count that is not at least 1."""
    from igva.errors import UserError

    at_least_one(args, "steps", "batch_size", "width", "blocks", "seeds", "warm_up_steps")
    at_least_one(args, "train_limit", "test_limit", "pool", "image_size")
    if args.width % 4:
        raise UserError(f"--width {args.width}: use a multiple of 4")


def read_data(args: argparse.Namespace) -> tuple[list[Question], list[Question]]:
    """Training and test questions, the first of tasks that are tested; the answer of a closed question is a choice.

    Whole models are asked the test questions as ``igva eval`` does; a readout gets them bare.

    Raises:
        UserError: a file is missing, malformed or empty, or a question is of both.
    """
    from igva.data.questions import pick, read_questions, read_turns
    from igva.errors import UserError
    from igva.model.processing_igva import instruction_text
    from igva.study.readout import of_tested_tasks

    read_test = read_questions if args.recipe else read_turns
    test = pick(read_test(args.test, args.category_field), args.test_limit)
    train = pick(of_tested_tasks(read_turns(args.train, args.category_field), test), args.train_limit)
    for question in (*train, *test):
        if question.choices and question.answer not in question.choices:
            raise UserError(f"question {question.id}: its answer {question.answer!r} is not among its choices")
    asked = [{(str(q.image), instruction_text(q.question)) for q in questions} for questions in (train, test)]
    if shared := asked[0] & asked[1]:
        raise UserError(
            f"{len(shared)} questions are in both --train and --test, such as {min(shared)[1]!r}: part them"
        )
    if len({question.id for question in test}) < len(test):
        raise UserError(f"{args.test}: two questions have the same id")
    return train, test


def load_encoders(args: argparse.Namespace) -> tuple[Any, Any]:
    """A model whose encoders the study reads, and its processor."""
    from igva.answering import load
    from igva.building import build
    from igva.errors import UserError

    if args.vision and args.model:
        raise UserError("--vision and --model exclude each other: give one")
    if args.vision is None:
        if args.pool != 1 or args.image_size or args.normalize_layers:
            raise UserError("--pool, --image-size and --normalize-layers belong to --vision: a model has its own")
        return load(args.model or "tiny", args.device, "float32")
    try:
        model, processor = build(
            args.vision,
            "embedded:text",
            args.instruction,
            "igva",
            image_size=args.image_size,
            vision_pool=args.pool,
            normalize_layers=args.normalize_layers,
        )
    except (OSError, ValueError) as error:
        raise UserError(f"{args.vision} cannot be loaded: {str(error).splitlines()[0]}") from error
    return model.to(args.device or "cpu"), processor


def readout_settings(args: argparse.Namespace) -> ReadoutSettings:
    """The readout's budget; raises ``UserError`` for a warm-up without cells."""
    from igva.errors import UserError
    from igva.study.readout import ReadoutSettings

    if args.warm_up_steps and not args.cells:
        raise UserError("--warm-up-steps needs the words of the cells: give --cells")
    return ReadoutSettings(
        steps=args.steps,
        warm_up_steps=(args.warm_up_steps or 400) if args.cells else 0,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        fusion_lr=args.fusion_lr,
        width=args.width,
        blocks=args.blocks,
    )


def describe(args: argparse.Namespace, train: list[Question], test: list[Question], readout: Any) -> dict[str, Any]:
    """What all runs of the study share."""
    import dataclasses

    from igva import __version__

    encoders = {
        "vision": args.vision,
        "instruction": args.instruction,
        "image_size": args.image_size,
        "pool": args.pool,
        "normalize_layers": args.normalize_layers,
    }
    return {
        "form": "whole models" if args.recipe else "readout",
        "train": str(Path(args.train).resolve()),
        "train_questions": len(train),
        "test": str(Path(args.test).resolve()),
        "test_questions": len(test),
        "encoders": encoders if args.vision else {"model": args.model or "tiny"},
        "recipes": args.recipe,
        "overrides": args.set,
        "readout": {} if args.recipe else dataclasses.asdict(readout),
        "igva": __version__,
    }


def cells(args: argparse.Namespace) -> Path | None:
    """The file of cell words."""
    return Path(args.cells) if args.cells else None

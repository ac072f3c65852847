"""``igva probe``: draw the offline suite, list its tasks, look at it, and check that it cannot be guessed."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

HELP = "Draw pictures with questions, offline: data to train on and to test with."
EXAMPLES = """\
igva probe build --split train --count 12000 --out data/probe-train
igva probe show --split val --out sheet.png"""

SPLITS = ("train", "val", "test", "unseen")  # igva.probe.SPLITS; a test compares them
COUNTS = {"train": 12000, "val": 1200, "test": 6400, "unseen": 3200}


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = actions.add_parser("build", help="write one split: pictures and JSON files")
    build.add_argument("--split", required=True, metavar="|".join(SPLITS), help="which split to draw")
    counts = ", ".join(f"{split} {count}" for split, count in COUNTS.items())
    build.add_argument("--count", type=int, metavar="N", help=f"number of pictures (default: {counts})")
    build.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same files (default 0)")
    build.add_argument(
        "--tasks", metavar="TASK,…", help="of these tasks alone, by turns (default: the published mixture)"
    )
    build.add_argument("--out", required=True, metavar="DIR", help="new or empty folder")
    build.add_argument("--workers", type=int, default=1, metavar="W", help="processes (default 1)")
    actions.add_parser("tasks", help="list every task: category, name, and whether it is in the published mixture")
    show = actions.add_parser("show", help="draw one example of every task into a picture")
    show.add_argument("--split", default="test", metavar="|".join(SPLITS), help="which split (default test)")
    show.add_argument("--seed", type=int, default=0, metavar="S")
    show.add_argument(
        "--number", type=int, default=0, metavar="N", help="which example of each task (default the first)"
    )
    show.add_argument("--out", required=True, metavar="FILE", help="PNG, JPEG or WebP")
    check = actions.add_parser(
        "check", help="measure what can be guessed without the pictures; exit code 1 if too much"
    )
    check.add_argument("--train", required=True, metavar="FILE", help="data.json of a training split")
    check.add_argument("--test", required=True, metavar="FILE", help="questions.json of a test split")
    check.add_argument("--json", metavar="FILE", help="also write the table as JSON")


def main(args: argparse.Namespace) -> int:
    """Run the verb; prints the folder, the file, or the table."""
    from pathlib import Path

    if args.action == "build":
        from igva.probe import build

        count = COUNTS.get(args.split, 1) if args.count is None else args.count
        tasks = [name.strip() for name in args.tasks.split(",")] if args.tasks else ()
        print(build(args.split, Path(args.out), count, seed=args.seed, workers=args.workers, tasks=tasks))
    elif args.action == "tasks":
        from igva.probe import categories
        from igva.probe.edition import PUBLISHED

        for category, names in categories().items():
            for name in names:
                print(f"{category:16s} {name:20s} {'published' if name in PUBLISHED[category] else 'by name only'}")
    elif args.action == "show":
        from igva.probe.sheet import draw_sheet

        print(draw_sheet(args.split, Path(args.out), args.seed, args.number))
    else:
        return _check(Path(args.train), Path(args.test), Path(args.json) if args.json else None)
    return 0


def _check(train: Path, test: Path, out: Path | None) -> int:
    import json
    from dataclasses import asdict

    from igva.files import write_errors
    from igva.probe.check import check, read_test, read_train

    verdicts = check(read_train(train), read_test(test))
    print(f"{'task':20s} {'questions':>9s} {'chance':>8s} {'majority':>9s} {'blind':>8s} {'±':>6s}")
    for verdict in verdicts:
        shares = f"{verdict.chance:7.1f}% {verdict.majority:8.1f}% {verdict.blind:7.1f}% {verdict.error:6.1f}"
        print(f"{verdict.task:20s} {verdict.questions:9d} {shares}{'  can be guessed' if verdict.leaks else ''}")
    if out:
        with write_errors(out):
            out.write_text(json.dumps([asdict(verdict) for verdict in verdicts], indent=1) + "\n")
    return int(any(verdict.leaks for verdict in verdicts))

"""``igva probe build``: draw the offline suite."""

import argparse

HELP = "Draw pictures with questions, offline: data to train on and to test with."

SPLITS = ("train", "val", "test", "unseen")  # igva.probe.SPLITS; a test compares them


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    build = actions.add_parser("build", help="write one split: pictures and JSON files")
    build.add_argument("--split", required=True, metavar="|".join(SPLITS), help="which split to draw")
    build.add_argument("--count", required=True, type=int, metavar="N", help="number of pictures")
    build.add_argument("--seed", type=int, default=0, metavar="S", help="same seed, same files (default 0)")
    build.add_argument("--out", required=True, metavar="DIR", help="new or empty folder")
    build.add_argument("--workers", type=int, default=1, metavar="W", help="processes (default 1)")


def main(args: argparse.Namespace) -> None:
    """Run the verb; prints the folder."""
    from pathlib import Path

    from igva.probe import build

    print(build(args.split, Path(args.out), args.count, seed=args.seed, workers=args.workers))

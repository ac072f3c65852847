"""``igva merge RUN OUT``: one folder with everything, LoRA folded in."""

import argparse

HELP = "fold what a run trained into a model of its own"
EXAMPLES = """\
igva merge runs/mine my-model
igva merge runs/mine/checkpoint-200 my-model"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("run", metavar="RUN", help="a run's output folder, or one of its checkpoint-N folders")
    parser.add_argument("out", metavar="OUT", help="new or empty folder for the model")


def main(args: argparse.Namespace) -> None:
    from pathlib import Path

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from igva.train.merge import merge

    print(merge(Path(args.run), Path(args.out)))

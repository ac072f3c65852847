"""``igva study layers|fusions|weights|attention``: each study has a file of its own."""

import argparse
import importlib

HELP = "what each layer contributes, fusions compared, layer weights, attention maps"
EXAMPLES = """\
igva study layers --train data.json --test questions.json --out runs/layers
igva study fusions --train data.json --test questions.json --out runs/fusions --fusions mean igva dense_dci
igva study weights --data questions.json --out runs/weights"""

STUDIES = ("layers", "fusions", "weights", "attention")


def add_arguments(parser: argparse.ArgumentParser) -> None:
    studies = parser.add_subparsers(dest="study", metavar="STUDY", required=True)
    for name in STUDIES:
        module = importlib.import_module(f"igva.cli.study_{name}")
        module.add_arguments(studies.add_parser(name, help=module.HELP, description=module.HELP))


def main(args: argparse.Namespace) -> None:
    importlib.import_module(f"igva.cli.study_{args.study}").main(args)

"""``igva models``: which models there are, where they lie, and their licences."""

import argparse

HELP = "list, fetch and locate the models igva knows by name"
EXAMPLES = """\
igva models
igva models fetch tiny
igva models licences"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION")
    actions.add_parser("list", help="the models, whether they are here, and their parts (default)")
    for name, text in (
        ("fetch", "download, convert and verify a model now"),
        ("where", "print a model's folder"),
        ("licences", "the licences of a model and its parts"),
    ):
        action = actions.add_parser(name, help=text)
        action.add_argument("model", nargs="?", default="tiny", metavar="NAME")


def main(args: argparse.Namespace) -> None:
    from igva.checkpoints.catalog import MODELS
    from igva.errors import UserError

    action = args.action or "list"
    if action == "list":
        for entry in MODELS.values():
            state = "here" if entry.present() else "not fetched yet"
            print(f"{entry.name:8s} {entry.description} ({state})")
        return
    if args.model not in MODELS:
        raise UserError(f"there is no model {args.model!r}: choose from {', '.join(MODELS)}")
    entry = MODELS[args.model]
    if action == "licences":
        for part, licence in entry.licences.items():
            print(f"{part:22s} {licence}")
    elif action == "where":
        if not entry.present():
            raise UserError(f"{entry.name} is not here yet: run `igva models fetch {entry.name}`")
        print(entry.path())
    else:
        from transformers.utils import logging

        logging.set_verbosity_error()
        logging.disable_progress_bar()
        entry.verify()
        print(entry.folder())

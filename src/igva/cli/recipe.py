"""``igva recipe``: the packaged recipes of training, to look at and to copy."""

import argparse

HELP = "list, show and copy the packaged recipes of training"
EXAMPLES = """\
igva recipe list
igva recipe copy tiny_instruct my_recipe.yaml"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    actions.add_parser("list", help="the recipes, a line each")
    show = actions.add_parser("show", help="print a recipe")
    copy = actions.add_parser("copy", help="write a recipe to a file of your own, to edit")
    for action in (show, copy):
        action.add_argument("name", metavar="NAME", help="a packaged recipe")
    copy.add_argument("file", nargs="?", metavar="FILE", help="default: NAME.yaml here; never overwritten")


def main(args: argparse.Namespace) -> None:
    from igva.train.arguments import packaged_text, recipe_names, recipe_summary

    if args.action == "list":
        width = max(map(len, recipe_names()))
        for name in recipe_names():
            print(f"{name:{width}s}  {recipe_summary(name)}")
    elif args.action == "show":
        print(packaged_text(args.name), end="")
    else:
        print(_copy(packaged_text(args.name), args.file or f"{args.name}.yaml"))


def _copy(text: str, target: str) -> str:
    """Write a new file.

    Raises:
        UserError: there is something already, or it cannot be written.
    """
    from pathlib import Path

    from igva.errors import UserError

    try:
        with Path(target).open("x", encoding="utf-8") as file:
            file.write(text)
    except FileExistsError as error:
        raise UserError(f"{target} exists already: name another file") from error
    except OSError as error:
        raise UserError(f"{target} cannot be written: {error.strerror}: name a file in a folder that exists") from error
    return target

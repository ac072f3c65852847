"""``igva train RECIPE [key=value …]``."""

import argparse
import sys

HELP = "train a model from a recipe"
EXAMPLES = """\
igva train tiny_instruct
igva train my_recipe.yaml optim.max_steps=200 output=runs/short
igva train my_recipe.yaml --resume"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("recipe", metavar="RECIPE", help="a packaged recipe (igva recipe list) or a YAML file")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that replace the recipe's")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint of the output folder")


def main(args: argparse.Namespace) -> None:
    from igva.train.arguments import load_recipe

    recipe = load_recipe(args.recipe, args.overrides)
    from igva.train.distributed import leave_processes, world_size
    from igva.train.run import run
    from igva.train.stopping import Stopped

    try:
        print(f"finished: {run(recipe, args.resume, name=args.recipe, overrides=args.overrides)}")
    except Stopped as stopped:
        if world_size() > 1:
            print(f"igva: {stopped}", file=sys.stderr)
            leave_processes(128 + stopped.number)
        raise
    leave_processes()

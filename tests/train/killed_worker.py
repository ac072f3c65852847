"""Forks a training run for every line it reads, and says how each ended: for the test that kills them."""

import os
import sys
from pathlib import Path

from igva.train.arguments import load_recipe
from igva.train.resuming import holds_run
from igva.train.run import run


def main(recipe, *overrides):
    settings = load_recipe(recipe, overrides)
    for _ in sys.stdin:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            run(settings, resume=holds_run(Path(settings.output)))
            os._exit(0)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print("ended", os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

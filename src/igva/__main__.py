"""``python -m igva``: the igva command, for ``torchrun -m igva train …``."""

import sys

from igva.cli.main import entry

if __name__ == "__main__":
    sys.exit(entry())

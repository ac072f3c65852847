"""Options that count something."""

import argparse


def at_least_one(args: argparse.Namespace, *names: str) -> None:
    """Raise ``UserError`` for an option below 1; one that was not given (None) has its default elsewhere."""
    from igva.errors import UserError

    for name in names:
        value = getattr(args, name)
        if value is not None and value < 1:
            raise UserError(f"--{name.replace('_', '-')} {value}: use at least 1")

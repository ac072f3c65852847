"""Options of the verbs that answer: how words are drawn."""

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from igva.answering import SamplingOptions


def add_sampling_options(parser: argparse.ArgumentParser) -> None:
    """Add ``--temperature``, ``--top-p`` and ``--seed``."""
    parser.add_argument(
        "--temperature",
        type=float,
        metavar="T",
        help="draw words by lot: 1 as likely as the model has them, below it tamer; 0 takes the likeliest "
        "(default: as the model's generation settings say; they take the likeliest where they say nothing)",
    )
    parser.add_argument(
        "--top-p", type=float, default=1.0, metavar="P", help="only the likeliest words, P in all (default 1)"
    )
    parser.add_argument("--seed", type=int, metavar="N", help="the same words each time")


def read_sampling(args: argparse.Namespace) -> "SamplingOptions | None":
    """What the options say; None where no temperature is given.

    Raises:
        UserError: a value that cannot be.
    """
    from igva.answering import SamplingOptions
    from igva.errors import UserError

    if not args.temperature and (args.top_p != 1 or args.seed is not None):
        raise UserError("--top-p and --seed have no effect without --temperature: give one above 0")
    if args.temperature is None:
        return None
    if not 0 <= args.temperature < float("inf"):
        raise UserError(f"--temperature {args.temperature:g}: use 0 or above")
    if not 0 < args.top_p <= 1:
        raise UserError(f"--top-p {args.top_p:g}: use a number above 0, up to 1")
    if args.seed is not None and not 0 <= args.seed < 2**63:
        raise UserError(f"--seed {args.seed}: use a whole number from 0 to 2^63 - 1")
    return SamplingOptions(args.temperature, args.top_p, args.seed)

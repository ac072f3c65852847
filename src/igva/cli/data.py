"""``igva data verify``: what a data set holds, and what is wrong with it."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from igva.model.processing_igva import IgvaProcessor

HELP = "look through a data set before training on it"
EXAMPLES = "igva data verify data.json --model tiny --plot data.png"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    verify = actions.add_parser("verify", help="count samples, pictures and tokens, and name what is broken")
    verify.add_argument(
        "data", metavar="PATH", help="LLaVA JSON, a Hugging Face data set (hf:NAME too), WebDataset shards"
    )
    verify.add_argument("--image-root", metavar="DIR", help="folder the image paths start from (default: the file's)")
    verify.add_argument(
        "--model", metavar="NAME_OR_PATH", help="count tokens with this model's processor (default: an estimate)"
    )
    verify.add_argument("--template", choices=("chat", "plain"), default="chat", help="as data.template of a recipe")
    verify.add_argument(
        "--max-length", type=int, default=2048, metavar="N", help="as data.max_length of a recipe (default 2048)"
    )
    verify.add_argument("--plot", metavar="FILE", help="also draw it, as .png, .pdf or .svg")
    verify.add_argument("--json", action="store_true", help="print JSON, with every case, in place of the table")


def main(args: argparse.Namespace) -> None:
    """Run the verb; raises ``UserError`` at the end if the data is broken."""
    import json
    from pathlib import Path

    from igva.data.sources import scan
    from igva.data.templates import PLAIN
    from igva.data.verify import verify
    from igva.data.verify_table import summary, table
    from igva.errors import UserError

    if args.max_length < 1:
        raise UserError(f"--max-length is {args.max_length}: at least 1 is expected")
    findings = verify(
        args.data,
        scan(args.data, args.image_root),
        processor=load_processor(args.model) if args.model else None,
        chat_template=PLAIN if args.template == "plain" else None,
        max_length=args.max_length,
    )
    if args.json:
        print(json.dumps(findings.to_json(), indent=2, ensure_ascii=False))
    else:
        for line in table(findings):
            print(line)
    if args.plot:
        from igva.data.verify_plot import plot_findings

        plot_findings(findings, Path(args.plot))
    if findings.broken() or not findings.samples:
        raise UserError(summary(findings))


def load_processor(name_or_path: str) -> IgvaProcessor:
    """The processor of a model; a folder needs no weights for it.

    Raises:
        UserError: there is no such model, or it has no processor of igva's.
    """
    from pathlib import Path

    from transformers import AutoProcessor

    from igva.answering import resolve_model
    from igva.errors import UserError
    from igva.model.processing_igva import IgvaProcessor

    path = Path(name_or_path).expanduser()
    folder = str(path) if path.is_dir() else resolve_model(name_or_path)
    try:
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        reason = str(error).strip().split("\n")[0]
        raise UserError(f"{name_or_path} has no processor that can be loaded: {reason}") from error
    if not isinstance(processor, IgvaProcessor):
        raise UserError(f"{name_or_path} has a {type(processor).__name__}, not the processor of an igva model")
    return processor

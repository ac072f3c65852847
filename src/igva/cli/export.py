"""``igva export``: an IGVA model → a checkpoint that needs no igva."""

import argparse

HELP = "make a stock LLaVA of a model whose mixture is fixed, or is to be"
EXAMPLES = """\
igva export my-model my-llava
igva export my-model my-llava --mixture task:color --weights runs/weights"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("model", metavar="MODEL", help="a folder, a name of `igva models`, or a hub id")
    parser.add_argument("target", metavar="DST", help="new or empty folder")
    parser.add_argument("--to", choices=["llava"], default="llava", help="whose format (default llava: transformers')")
    parser.add_argument(
        "--mixture",
        metavar="uniform|FILE|task:NAME",
        help="the weights that every question gets, where the question would set them: a JSON list; or of a study's "
        "weights.jsonl the mean, over all questions or those of a task",
    )
    parser.add_argument("--weights", metavar="PATH", help="for task:NAME: what `igva study weights` wrote")
    parser.add_argument(
        "--dtype", choices=["float32", "float16", "bfloat16"], help="of the weights (default: as saved)"
    )


def main(args: argparse.Namespace) -> None:
    """Export, save, and print what was done."""
    import sys
    from pathlib import Path

    from transformers.utils import logging

    from igva.files import check_free, result_folder

    target = Path(args.target)
    check_free(target)  # before the long work
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from igva.answering import load
    from igva.checkpoints.export import export_llava, read_mixture

    study = Path(args.weights) if args.weights else None
    mixture = read_mixture(args.mixture, study) if args.mixture else None
    print(f"igva: reading {args.model}", file=sys.stderr)
    model, processor = load(args.model, "cpu", args.dtype or "auto", to_answer=False)
    export = export_llava(model, processor, mixture)
    print(f"igva: writing {target}", file=sys.stderr)
    with result_folder(target) as folder:
        export.save(folder)
    rows = [("layers read", ", ".join(map(str, export.layers))), *(("note", note) for note in export.notes)]
    print("\n".join(f"{name:<14}{value}" for name, value in [*rows, ("saved", str(target))]))

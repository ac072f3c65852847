"""``igva ask IMAGE QUESTION``: the answer, and how the layers were mixed for it."""

import argparse
from typing import TYPE_CHECKING, Any

from igva.cli.counts import at_least_one
from igva.cli.sampling_options import add_sampling_options, read_sampling

if TYPE_CHECKING:
    from igva.answering import Answer

HELP = "answer a question about a picture"
EXAMPLES = """\
igva ask photo.jpg "What animal is this?"
igva ask --image a.jpg --image b.jpg "Which one shows a cat?" --json
igva ask photo.jpg "How many boats are there?" --plot answer.png --model runs/my_model"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "words",
        nargs="+",
        metavar="IMAGE QUESTION",
        help="picture and question; the question alone where --image names the pictures",
    )
    parser.add_argument("--image", action="append", default=[], metavar="IMAGE", help="a picture; may be repeated")
    parser.add_argument("--model", default="tiny", metavar="NAME_OR_PATH", help="a name of `igva models`, or a folder")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--plot", metavar="FILE.png", help="draw picture, question, answer and layer weights")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps (default: the GPU if there is one)")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="longest answer, in tokens")
    add_sampling_options(parser)


def main(args: argparse.Namespace) -> None:
    import json
    from pathlib import Path

    from igva.errors import UserError

    *paths, question = args.words
    images = [*args.image, *paths]
    if len(paths) > 1:
        raise UserError("one picture and one question: put the question in quotes, name more pictures with --image")
    if not images:
        raise UserError("name a picture and a question: igva ask IMAGE QUESTION")
    if not question.strip():
        raise UserError("the question is empty: say what you want to know about the picture")
    if args.plot and not Path(args.plot).resolve().parent.is_dir():
        raise UserError(f"the folder of {args.plot} does not exist: make it first")

    at_least_one(args, "max_new_tokens")
    read_sampling(args)

    from igva.data.images import open_image

    pictures = [open_image(path) for path in images]  # before the model loads: a wrong path should fail at once
    result = ask(args, pictures, question)
    if args.plot:
        from igva.answer_plot import plot_answer

        plot_answer(pictures, question, result, Path(args.plot))
    print(json.dumps(result.to_json()) if args.json else render(result))


def ask(args: argparse.Namespace, pictures: list[Any], question: str) -> "Answer":
    """Load the model and answer, quietly."""
    import time

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from igva.answering import answer, load

    start = time.perf_counter()
    model, processor = load(args.model, args.device, args.dtype)
    loaded = time.perf_counter() - start
    return answer(
        model,
        processor,
        pictures,
        question,
        max_new_tokens=args.max_new_tokens,
        sampling=read_sampling(args),
        name=args.model,
        load_s=loaded,
    )


def render(result: "Answer") -> str:
    """The answer, then a bar for each layer group (one block per picture)."""
    return "\n".join([result.answer, *weight_bars(result)])


def weight_bars(result: "Answer") -> list[str]:
    """A line with a bar for each layer group, after an empty one; several pictures have a heading each."""
    if result.layer_weights is None:
        return []
    labels = result.group_labels()
    width = max(map(len, labels))
    rows = result.weight_rows()
    lines = []
    for number, row in enumerate(rows, start=1):
        lines.append("" if len(rows) == 1 else f"\npicture {number}")
        for label, weight in zip(labels, row, strict=True):
            lines.append(f"{label:>{width}}  {weight:5.1%}  {'█' * round(weight * 40)}")
    return lines

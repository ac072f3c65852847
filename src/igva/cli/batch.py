"""``igva batch IN.jsonl OUT.jsonl``: many questions about pictures on disk."""

import argparse

from igva.cli.counts import at_least_one

HELP = "answer a file of questions about pictures on disk"
EXAMPLES = """\
igva batch questions.jsonl answers.jsonl --batch-size 16
igva batch questions.jsonl answers.jsonl --retry-failed"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("input", metavar="IN.jsonl", help='lines of {"image": path or list, "question": …, "id": …}')
    parser.add_argument("output", metavar="OUT.jsonl", help="answers in the same order; goes on where it was stopped")
    parser.add_argument("--model", default="tiny", metavar="NAME_OR_PATH", help="a name of `igva models`, or a folder")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="questions at once")
    parser.add_argument("--max-new-tokens", type=int, default=64, metavar="N", help="longest answer, in tokens")
    parser.add_argument("--retry-failed", action="store_true", help="ask the lines again that failed before")
    parser.add_argument("--engine", choices=("local", "ray"), default="local", help="where the work is done")
    parser.add_argument("--workers", type=int, default=1, metavar="N", help="ray: processes that hold the model")
    parser.add_argument("--ray-address", metavar="ADDRESS", help="ray: a cluster to use (default: this machine)")
    parser.add_argument("--device", help="local: cpu, cuda, cuda:N or mps (default: the GPU if there is one)")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)")


def main(args: argparse.Namespace) -> int:
    import sys
    from pathlib import Path

    from igva.errors import UserError

    at_least_one(args, "batch_size", "max_new_tokens", "workers")
    source, out = Path(args.input), Path(args.output)
    if not source.is_file():
        raise UserError(f"{source} does not exist: check the path")
    if not out.resolve().parent.is_dir():
        raise UserError(f"the folder of {out} does not exist: make it first")
    if out.exists() and out.samefile(source):
        raise UserError(f"{out} is the input too: name another output")

    from transformers.utils import logging

    logging.disable_progress_bar()
    from igva.answering import load, resolve_model
    from igva.serve.batch_file import Answerer, LocalAnswerer, run_batch

    answerer: Answerer
    if args.engine == "ray":
        from igva.serve.batch_ray import RayAnswerer

        resolve_model(args.model)
        answerer = RayAnswerer(
            args.model, args.batch_size, args.max_new_tokens, args.workers, args.dtype, args.ray_address
        )
    else:
        model, processor = load(args.model, args.device, args.dtype)
        answerer = LocalAnswerer(model, processor, args.batch_size, args.max_new_tokens)
    settings = {"model": args.model, "max_new_tokens": args.max_new_tokens, "dtype": args.dtype}
    outcome = run_batch(source, out, settings, answerer, args.retry_failed)
    print(f"answered {outcome.answered}, failed {outcome.failed}: {out}", file=sys.stderr)
    return 1 if outcome.failed else 0

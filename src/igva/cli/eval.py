"""``igva eval``: accuracy per task on a file of questions with closed answers."""

import argparse

HELP = "score a model on a file of questions"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", metavar="NAME_OR_PATH", help="a name of `igva models`, or a folder")
    parser.add_argument("--data", required=True, metavar="FILE", help="questions.json, as `igva probe build` writes it")
    parser.add_argument("--out", required=True, metavar="DIR", help="raw predictions and scores go here; resumes there")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N")
    parser.add_argument("--zero-images", action="store_true", help="zeros in place of pictures: the blind control")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16")


def main(args: argparse.Namespace) -> None:
    from pathlib import Path

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from igva.answering import load
    from igva.eval.run import evaluate, read_questions

    questions = read_questions(Path(args.data))
    model, processor = load(args.model, args.device, args.dtype)
    scores = evaluate(
        model, processor, questions, Path(args.out), batch_size=args.batch_size, zero_images=args.zero_images
    )
    print(f"{'task':12s} {'accuracy':>8s} {'chance':>8s} {'questions':>9s}")
    for task, entry in scores["tasks"].items():
        print(f"{task:12s} {entry['accuracy']:7.1f}% {entry['chance']:7.1f}% {entry['questions']:9d}")
    print(f"{'mean':12s} {scores['mean']:7.1f}%   ({scores['metric']})")

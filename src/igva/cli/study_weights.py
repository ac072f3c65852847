"""``igva study weights``: how a trained model weighs its layers, by kind of question."""

import argparse

from igva.cli.counts import at_least_one

HELP = "how a trained model weighs its layers, for which questions, and whether that matters"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", metavar="NAME_OR_PATH", help="a name of `igva models`, or a folder")
    parser.add_argument("--data", required=True, metavar="FILE", help="questions.json, or LLaVA JSON")
    parser.add_argument("--out", required=True, metavar="DIR", help="tables, pictures, report.html; resumes there")
    parser.add_argument("--category-field", default="category", metavar="NAME", help="field that names the category")
    parser.add_argument("--limit", type=int, metavar="N", help="N questions, as alike in number per task as they go")
    parser.add_argument("--clusters", type=int, default=8, metavar="K", help="clusters of questions (default 8)")
    parser.add_argument(
        "--counterfactuals",
        action="store_true",
        help="also answer every question with each layer group left out, each alone, all alike, and the weights of "
        "another question (this runs the language model)",
    )
    parser.add_argument("--max-new-tokens", type=int, default=16, metavar="N", help="longest answer (default 16)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="pictures at a time (default 16)")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps (default: the GPU if there is one)")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)")


def main(args: argparse.Namespace) -> None:
    from pathlib import Path

    from transformers.utils import logging

    at_least_one(args, "clusters", "max_new_tokens", "batch_size", "limit")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from igva.answering import load
    from igva.data.questions import pick_questions, read_questions
    from igva.eval.run import fingerprint, question_hash
    from igva.study.weights import study_weights

    questions = pick_questions(read_questions(Path(args.data), args.category_field), args.limit)
    model, processor = load(args.model, args.device, args.dtype)
    report = study_weights(
        model,
        processor,
        questions,
        Path(args.out),
        clusters=args.clusters,
        counterfactuals=args.counterfactuals,
        batch_size=args.batch_size,
        max_new_tokens=args.max_new_tokens,
        settings={
            "model": args.model,
            "model_key": fingerprint(model),
            "fusion": model.config.fusion,
            "data": args.data,
            "data_key": question_hash(questions),
            "category_field": args.category_field,
            "questions": len(questions),
            "clusters": args.clusters,
            "max_new_tokens": args.max_new_tokens,
            "dtype": str(model.dtype),
        },
    )
    print(f"report: {report}")

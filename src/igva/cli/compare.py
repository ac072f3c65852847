"""``igva compare``: did the second model do better on *your* questions?"""

import argparse

from igva.cli.counts import at_least_one

HELP = "two models on one file of questions: is the difference more than chance?"
EXAMPLES = "igva compare tiny runs/my_model questions.json --out runs/compared"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("before", metavar="BEFORE", help="a name of `igva models`, or a folder")
    parser.add_argument("after", metavar="AFTER", help="the model it is compared with")
    parser.add_argument("data", metavar="DATA", help="questions.json, or LLaVA JSON")
    parser.add_argument("--out", required=True, metavar="DIR", help="answers, tables, report.html; resumes there")
    parser.add_argument("--category-field", default="category", metavar="NAME", help="field that names the category")
    parser.add_argument("--limit", type=int, metavar="N", help="N questions, as alike in number per task as they go")
    parser.add_argument("--max-new-tokens", type=int, default=16, metavar="N", help="longest answer (default 16)")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="questions at a time (default 16)")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps (default: the GPU if there is one)")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)")


def main(args: argparse.Namespace) -> None:
    from pathlib import Path

    from transformers.utils import logging

    at_least_one(args, "max_new_tokens", "batch_size", "limit")
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from igva.answering import load, resolve_model
    from igva.data.questions import pick_questions, read_questions
    from igva.eval.run import evaluate
    from igva.study.compare import comparison_table, study_compare, verdict
    from igva.tables import text_table

    out = Path(args.out)
    questions = pick_questions(read_questions(Path(args.data), args.category_field), args.limit)
    names = {"before": args.before, "after": args.after}
    for name in names.values():
        resolve_model(name)  # before the first model answers: a wrong name of the second should fail at once
    settings = {
        "data": args.data,
        "category_field": args.category_field,
        "questions": len(questions),
        "max_new_tokens": args.max_new_tokens,
        "dtype": args.dtype,
    }

    def answer(side: str, folder: Path) -> None:
        model, processor = load(names[side], args.device, args.dtype)
        evaluate(model, processor, questions, folder, batch_size=args.batch_size, max_new_tokens=args.max_new_tokens)

    answers = {side: lambda folder, side=side: answer(side, folder) for side in names}
    report, comparison = study_compare(questions, out, answers, names, {**names, **settings})
    print(text_table(comparison_table(comparison)))
    print()
    print("\n".join(verdict(comparison, names)))
    print(f"report: {report}")

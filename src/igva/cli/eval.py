"""``igva eval``: scores of a model on a file of questions, the probe suite, or lmms-eval's benchmarks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from igva.cli.counts import at_least_one

HELP = "score a model on questions of your own, the probe suite, or lmms-eval's benchmarks"

SPLITS = ("test", "unseen", "val")  # those of igva.probe that have questions; a test compares them
LMMS = "lmms:"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", metavar="NAME_OR_PATH", help="a name of `igva models`, or a folder")
    parser.add_argument(
        "--suite",
        "--data",
        required=True,
        metavar="probe|FILE|lmms:TASK,…",
        help="the probe suite, a file (questions.json or LLaVA JSON), or tasks of lmms-eval",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="raw predictions and scores go here; resumes there")
    parser.add_argument("--split", choices=SPLITS, help="of the probe suite (default test)")
    parser.add_argument("--limit", type=int, metavar="N", help="N questions, as alike in number per task as they go")
    parser.add_argument("--batch-size", type=int, default=16, metavar="N", help="questions at a time (default 16)")
    parser.add_argument(
        "--max-new-tokens", type=int, metavar="N", help="longest answer (default 16; lmms-eval: the task's)"
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps (default: the GPU if there is one)")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)")
    parser.add_argument("--zero-images", action="store_true", help="zeros in place of pictures: the blind control")
    parser.add_argument("--category-field", default="category", metavar="NAME", help="field that names the category")
    form = parser.add_mutually_exclusive_group()
    form.add_argument("--answer-suffix", metavar="TEXT", help="end every question with this request, not its own")
    form.add_argument("--no-answer-suffix", action="store_true", help="leave out requests such as 'a single word'")
    parser.add_argument("--include-path", metavar="DIR", help="lmms-eval: a folder of task files")
    parser.add_argument("--plot", metavar="FILE", help="draw the scores to an image file")


def main(args: argparse.Namespace) -> None:
    from transformers.utils import logging

    _check(args)
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    if args.suite.startswith(LMMS):
        _run_lmms(args)
        return
    from igva.answering import load
    from igva.eval.metrics import check_questions
    from igva.eval.probe_suite import probe_questions
    from igva.eval.questions import pick_questions, read_questions, with_format
    from igva.eval.report import draw_scores, figure_lines, score_table
    from igva.eval.run import evaluate
    from igva.plot import save_figure
    from igva.study.report import text_table

    file = probe_questions(args.split or "test") if args.suite == "probe" else Path(args.suite)
    questions = pick_questions(read_questions(file, args.category_field), args.limit)
    if args.answer_suffix or args.no_answer_suffix:
        questions = with_format(questions, args.answer_suffix or "")
    check_questions(questions)
    model, processor = load(args.model, args.device, args.dtype)
    scores = evaluate(
        model,
        processor,
        questions,
        Path(args.out),
        batch_size=args.batch_size,
        max_new_tokens=args.max_new_tokens or 16,
        zero_images=args.zero_images,
    )
    print(f"prompt: {scores['prompt']!r}")
    for name, summary in scores["metrics"].items():
        print(f"metric: {name} ({summary})")
    print()
    print(text_table(score_table(scores)))
    for line in figure_lines(scores):
        print(line)
    if args.plot:
        save_figure(draw_scores(scores), Path(args.plot))
        print(f"figure: {args.plot}")


def _check(args: argparse.Namespace) -> None:
    """Refuse what does not go together, before anything is loaded."""
    from igva.errors import UserError

    at_least_one(args, "batch_size", "max_new_tokens", "limit")
    lmms = args.suite.startswith(LMMS)
    for name in ("zero_images", "plot", "answer_suffix", "no_answer_suffix"):
        if lmms and getattr(args, name):
            raise UserError(f"--{name.replace('_', '-')} does not go with {LMMS}…: leave it out")
    if args.include_path and not lmms:
        raise UserError(f"--include-path is for --suite {LMMS}…: leave it out")
    if args.split and args.suite != "probe":
        raise UserError("--split is for --suite probe: leave it out")


def _run_lmms(args: argparse.Namespace) -> None:
    from igva.eval.lmms_run import run_lmms

    options: dict[str, Any] = {"max_new_tokens": args.max_new_tokens} if args.max_new_tokens else {}
    run_lmms(
        args.model,
        args.suite.removeprefix(LMMS),
        Path(args.out),
        batch_size=args.batch_size,
        limit=args.limit,
        device=args.device,
        dtype=args.dtype,
        include_path=Path(args.include_path) if args.include_path else None,
        **options,
    )

"""``igva eval``: scores of a model on a file of questions, a suite that ships with igva, or lmms-eval's benchmarks."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from igva.cli.counts import at_least_one

HELP = "score a model on questions of your own, the probe or photos suite, or lmms-eval's benchmarks"
EXAMPLES = """\
igva eval --suite photos --list --out runs/photos
igva eval --suite questions.json --model runs/my_model --out runs/mine-eval
igva eval --suite lmms:pope,mme --model my-model --out runs/benchmarks"""

# Of each suite that ships with igva; a test compares them with igva.probe's and igva.eval.photo_suite's.
SPLITS = {"probe": ("test", "unseen", "val"), "photos": ("whole", "cutouts", "hands", "open")}
LMMS = "lmms:"


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", metavar="NAME_OR_PATH", help="a name of `igva models`, or a folder")
    parser.add_argument(
        "--suite",
        "--data",
        required=True,
        metavar="probe|photos|FILE|lmms:TASK,…",
        help="a suite of igva, a file (questions.json or LLaVA JSON), or tasks of lmms-eval",
    )
    parser.add_argument("--out", required=True, metavar="DIR", help="raw predictions and scores go here; resumes there")
    parser.add_argument(
        "--split",
        metavar="NAME",
        help="; ".join(f"of {suite}: {', '.join(splits)}" for suite, splits in SPLITS.items())
        + " (default: test; all of photos)",
    )
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
    parser.add_argument("--list", action="store_true", help="print every answer as it came")
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
    from igva.data.questions import pick_questions, read_questions, with_format
    from igva.eval.metrics import check_questions
    from igva.eval.report import answer_table, draw_scores, figure_lines, score_table
    from igva.eval.run import evaluate, read_graded
    from igva.plot import save_figure
    from igva.tables import text_table

    everything = [one for file in _files(args) for one in read_questions(file, args.category_field)]
    questions = pick_questions(everything, args.limit)
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
    if args.list:
        print()
        print(text_table(answer_table(read_graded(Path(args.out), questions))))
    if args.plot:
        save_figure(draw_scores(scores), Path(args.plot))
        print(f"figure: {args.plot}")


def _check(args: argparse.Namespace) -> None:
    """Refuse what does not go together, before anything is loaded."""
    from igva.errors import UserError

    at_least_one(args, "batch_size", "max_new_tokens", "limit")
    lmms = args.suite.startswith(LMMS)
    for name in ("zero_images", "plot", "list", "answer_suffix", "no_answer_suffix"):
        if lmms and getattr(args, name):
            raise UserError(f"--{name.replace('_', '-')} does not go with {LMMS}…: leave it out")
    if args.include_path and not lmms:
        raise UserError(f"--include-path is for --suite {LMMS}…: leave it out")
    if args.split and args.suite not in SPLITS:
        raise UserError(f"--split is for --suite {' and --suite '.join(SPLITS)}: leave it out")
    if args.split and args.split not in SPLITS[args.suite]:
        raise UserError(f"--suite {args.suite} has no split {args.split!r}: use one of {', '.join(SPLITS[args.suite])}")


def _files(args: argparse.Namespace) -> list[Path]:
    """The files of questions that are asked."""
    if args.suite == "probe":
        from igva.eval.probe_suite import probe_questions

        return [probe_questions(args.split or "test")]
    if args.suite == "photos":
        from igva.eval.photo_suite import photo_questions

        return photo_questions([args.split] if args.split else SPLITS["photos"])
    return [Path(args.suite)]


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

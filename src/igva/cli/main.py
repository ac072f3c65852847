"""``igva VERB …``: finds the verb's file, imports nothing else until it runs."""

import argparse
import difflib
import importlib
import logging
import os
import signal
import sys
import textwrap

# verb -> module under igva.cli; each has HELP, EXAMPLES, add_arguments(parser) and main(args).
VERBS = (
    "ask",
    "chat",
    "batch",
    "serve",
    "models",
    "fusions",
    "convert",
    "export",
    "push",
    "train",
    "plan",
    "recipe",
    "merge",
    "data",
    "probe",
    "eval",
    "study",
    "compare",
    "doctor",
)


EXIT_CODES = """\
exit codes:
  0         done
  1         done, and something was wrong with what was looked at: lines that failed (batch), leaks (probe check)
  2         bad input, in one line
  130, 143  stopped by Ctrl-C or SIGTERM; what takes long goes on where it was"""


class _Formatter(argparse.HelpFormatter):
    """Examples stay in their lines; everything else is wrapped."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        return text if "\n" in text else super()._fill_text(text, width, indent)


def build_parser(verb: str | None = None) -> argparse.ArgumentParser:
    """The parser; with ``verb``, that verb's arguments are filled in, the others are names only."""
    from igva import __version__

    parser = argparse.ArgumentParser(
        prog="igva",
        description="Vision-language models whose vision layers are mixed by the question.",
        epilog=EXIT_CODES,
        formatter_class=_Formatter,
    )
    parser.add_argument("--version", action="version", version=f"igva {__version__}")
    verbs = parser.add_subparsers(dest="verb", metavar="VERB", required=True)
    for name in VERBS:
        module = importlib.import_module(f"igva.cli.{name}")
        sub = verbs.add_parser(
            name,
            help=module.HELP,
            description=module.HELP,
            epilog="examples:\n" + textwrap.indent(module.EXAMPLES.strip(), "  "),
            formatter_class=_Formatter,
        )
        if verb in (None, name):
            module.add_arguments(sub)
    return parser


def entry(argv: list[str] | None = None) -> int:
    """Run one verb; a ``UserError`` becomes one line on standard error and exit code 2."""
    from igva.errors import UserError

    argv = sys.argv[1:] if argv is None else argv
    verb = next((word for word in argv if not word.startswith("-")), None)
    # Where bitsandbytes is installed without a GPU, importing PEFT would say so on every call.
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)
    if verb is not None and verb not in VERBS:
        near = difflib.get_close_matches(verb, VERBS, n=1)
        hint = f"did you mean {near[0]!r}?" if near else "`igva --help` lists them"
        print(f"igva: there is no verb {verb!r}: {hint}", file=sys.stderr)
        return 2
    args = _parse(build_parser(verb), argv)
    try:
        code = importlib.import_module(f"igva.cli.{args.verb}").main(args)
    except UserError as error:
        print(f"igva: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt as stopped:
        print(f"igva: {str(stopped) or 'stopped'}", file=sys.stderr)
        return 128 + getattr(stopped, "number", signal.SIGINT)
    except BrokenPipeError:  # the reader (head, less) went away
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return code or 0  # only a verb that judges has a code to give


def _parse(parser: argparse.ArgumentParser, argv: list[str]) -> argparse.Namespace:
    """``parse_args``, and settings (key=value) may stand behind an option too: argparse takes only the first run."""
    args, extra = parser.parse_known_args(argv)
    if settings := [word for word in extra if hasattr(args, "overrides") and not word.startswith("-")]:
        args.overrides = [*args.overrides, *settings]
        extra = [word for word in extra if word.startswith("-")]
    if extra:
        parser.error(f"unrecognized arguments: {' '.join(extra)}")
    return args


if __name__ == "__main__":
    sys.exit(entry())

"""``igva push``: a model, its code and a card to a hub."""

import argparse

HELP = "upload a model to a hub, with the code that loads it and a card of what is known"
EXAMPLES = """\
igva push my-model me/my-model --run runs/mine --licence apache-2.0 --private
igva push my-model me/my-model --into folder"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of the verb."""
    parser.add_argument("model", metavar="MODEL", help="a folder, or a name of `igva models`")
    parser.add_argument("repo", metavar="OWNER/NAME", help="where it is to go; made if it is not there")
    parser.add_argument(
        "--run", metavar="RUN", help="a run whose run.json the card tells (default: MODEL's, if it has one)"
    )
    parser.add_argument("--scores", nargs="+", default=[], metavar="DIR", help="what `igva eval --out` wrote")
    parser.add_argument("--licence", metavar="NAME", help="of the weights, as the hub calls it: apache-2.0")
    parser.add_argument("--base-model", nargs="+", default=[], metavar="ID", help="hub ids of what it was made of")
    parser.add_argument("--private", action="store_true", help="a repository that only its owners see")
    parser.add_argument("--into", metavar="FOLDER", help="write what would be uploaded here, and upload nothing")


def main(args: argparse.Namespace) -> None:
    """Load, save with code and card, upload."""
    import sys
    import tempfile
    from pathlib import Path

    from transformers.utils import logging

    from igva.files import check_free, result_folder

    if args.into:
        check_free(Path(args.into))  # before the long work
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from igva.hub import check_login, check_repo, save_for_hub, upload

    check_repo(args.repo)
    if not args.into:
        check_login()
    with result_folder(Path(args.into)) if args.into else tempfile.TemporaryDirectory() as written:
        folder = Path(written)
        save_for_hub(
            args.model,
            args.repo,
            folder,
            run=Path(args.run) if args.run else None,
            scores=[Path(name) for name in args.scores],
            licence=args.licence,
            base_models=args.base_model,
        )
        if not args.into:
            print(f"igva: uploading to {args.repo}", file=sys.stderr)
            address = upload(args.repo, folder, private=args.private)
    print(args.into or address)

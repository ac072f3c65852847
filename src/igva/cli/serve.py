"""``igva serve``: an OpenAI-compatible server and a page."""

import argparse

from igva.cli.counts import at_least_one

HELP = "serve a model: OpenAI-compatible API, and a page to try it"
EXAMPLES = """\
igva serve --port 8000
igva serve --model runs/my_model --host 0.0.0.0 --api-key SECRET --allow-domain "*.example.org"
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default="tiny", metavar="NAME_OR_PATH", help="a name of `igva models`, or a folder")
    parser.add_argument("--name", help="the model's name in requests (default: the last part of --model)")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="port (default: 8000; 0: a free one)")
    parser.add_argument("--api-key", metavar="KEY", help="key that clients must give (default: $IGVA_API_KEY)")
    parser.add_argument(
        "--allow-domain",
        action="append",
        default=[],
        metavar="NAME",
        help="fetch pictures from this host, *.NAME for all below it; may be repeated (default: none)",
    )
    parser.add_argument(
        "--allow-local",
        action="append",
        default=[],
        metavar="DIR",
        help="read pictures below this folder (file:///…); may be repeated (default: none)",
    )
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps (default: the GPU if there is one)")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)")
    parser.add_argument("--max-active", type=int, default=16, metavar="N", help="answers generated at once")
    parser.add_argument("--max-waiting", type=int, default=256, metavar="N", help="answers that may wait")
    parser.add_argument("--max-new-tokens", type=int, default=1024, metavar="N", help="longest answer, in tokens")
    parser.add_argument("--max-images", type=int, default=8, metavar="N", help="pictures per request")
    parser.add_argument("--max-megapixels", type=int, default=32, metavar="N", help="of one picture")
    parser.add_argument("--layer-cache-mb", type=int, default=256, metavar="MB", help="layer means kept (0: none)")


def main(args: argparse.Namespace) -> None:
    import os
    from pathlib import Path

    from igva.errors import UserError

    key = args.api_key if args.api_key is not None else os.environ.get("IGVA_API_KEY") or None
    _check(args)
    try:
        from igva.serve.run import bind, run
    except ImportError as error:
        raise UserError("the server needs more packages: pip install 'igva[serve]'") from error
    from igva.serve.guard import is_loopback

    local = is_loopback(args.host)
    if not local and key is None:
        raise UserError(f"--host {args.host} is open to others: give --api-key (or IGVA_API_KEY) too")
    if key is not None and not key.strip():
        raise UserError("--api-key is empty: give a key, or leave the option out")
    if key is not None and not key.isascii():
        raise UserError("the API key has characters that no HTTP header can hold: use ASCII")
    for folder in args.allow_local:
        if not Path(folder).is_dir():
            raise UserError(f"--allow-local {folder}: there is no such folder")

    from transformers.utils import logging

    logging.disable_progress_bar()
    from igva.answering import load
    from igva.serve.app import Settings, create_app
    from igva.serve.fetch import Fetcher
    from igva.serve.limits import Limits
    from igva.serve.local_files import LocalFiles
    from igva.serve.memory import share_one_arena

    share_one_arena()
    limits = Limits(
        active=args.max_active,
        waiting=args.max_waiting,
        new_tokens=args.max_new_tokens,
        images=args.max_images,
        image_pixels=args.max_megapixels * 1_000_000,
    )
    listener = bind(args.host, args.port)  # before the model loads: a port that is taken should fail at once
    model, processor = load(args.model, args.device, args.dtype)
    settings = Settings(
        name=args.name or Path(args.model).name,
        api_key=key,
        local_only=local,
        store_bytes=args.layer_cache_mb * 2**20,
        limits=limits,
    )
    app = create_app(
        model, processor, settings, Fetcher(args.allow_domain, limits), LocalFiles(args.allow_local, limits)
    )
    run(app, listener, limits)


def _check(args: argparse.Namespace) -> None:
    from igva.errors import UserError

    at_least_one(args, "max_active", "max_waiting", "max_new_tokens", "max_images", "max_megapixels")
    if args.layer_cache_mb < 0:
        raise UserError(f"--layer-cache-mb {args.layer_cache_mb}: use 0 or more")
    if not 0 <= args.port < 65536:
        raise UserError(f"--port {args.port}: use 0 to 65535")

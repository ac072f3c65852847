"""``igva chat``: a conversation about pictures in the terminal."""

import argparse
from typing import TYPE_CHECKING, Any

from igva.cli.counts import at_least_one
from igva.cli.sampling_options import add_sampling_options, read_sampling

if TYPE_CHECKING:
    from igva.answering import Answer, SamplingOptions

HELP = "talk about pictures in the terminal"
EXAMPLES = """\
igva chat photo.jpg
igva chat --model runs/my_model --temperature 0.7 --seed 1"""
COMMANDS = """\
/image FILE   show a picture with your next message
/weights      how the layers were mixed for the last answer
/reset        forget everything
/help         this list
/quit         leave (or Ctrl-D)"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("images", nargs="*", metavar="IMAGE", help="pictures to begin with")
    parser.add_argument("--model", default="tiny", metavar="NAME_OR_PATH", help="a name of `igva models`, or a folder")
    parser.add_argument("--device", help="cpu, cuda, cuda:N or mps (default: the GPU if there is one)")
    parser.add_argument("--dtype", help="float32, bfloat16 or float16 (default: float32 on the CPU, else bfloat16)")
    parser.add_argument("--max-new-tokens", type=int, default=256, metavar="N", help="longest answer, in tokens")
    add_sampling_options(parser)


def main(args: argparse.Namespace) -> None:
    import contextlib

    from igva.data.images import open_image
    from igva.errors import UserError

    at_least_one(args, "max_new_tokens")
    sampling = read_sampling(args)
    pictures = [open_image(path) for path in args.images]  # before the model loads
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401  # editing and history of the line

    from transformers.utils import logging

    logging.set_verbosity_error()
    logging.disable_progress_bar()
    from igva.answering import ChatRefused, load

    model, processor = load(args.model, args.device, args.dtype)
    talk = Talk(model, processor, args.max_new_tokens, pictures, sampling)
    print(f"igva chat with {args.model}; /help lists the commands")
    while True:
        try:
            line = input("> ").strip()
        except EOFError:
            print()
            return
        if line == "/quit":
            return
        try:
            if line:
                talk.take(line)
        except UserError as error:
            if isinstance(error, ChatRefused) and not talk.chat:  # nothing can be said to this model
                raise
            print(f"igva: {error}")  # a mistake ends no conversation


class Talk:
    """A conversation: what was said, and the pictures that wait for the next message.

    Args:
        pictures: to begin with.
        sampling: how words are drawn; each answer has a seed of its own, counted up from this one's.
    """

    def __init__(
        self,
        model: Any,
        processor: Any,
        max_new_tokens: int,
        pictures: list[Any],
        sampling: "SamplingOptions | None" = None,
    ):
        self.sampling = sampling
        self.model, self.processor, self.max_new_tokens = model, processor, max_new_tokens
        self.chat: list[dict[str, Any]] = []
        self.pictures = pictures
        self.last: Answer | None = None

    def take(self, line: str) -> None:
        """Obey a command, or answer.

        Raises:
            UserError: no such command, a picture that cannot be read, or a chat template that refuses.
        """
        from igva.errors import UserError

        word, _, rest = line.partition(" ")
        if word == "/image":
            self._show(rest.strip())
        elif word == "/weights":
            self._weights()
        elif word == "/reset":
            self.chat, self.pictures, self.last = [], [], None
            print("forgotten")
        elif word == "/help":
            print(COMMANDS)
        elif word.startswith("/") and word.isascii() and word[1:].isalpha():
            raise UserError(f"there is no command {word}: /help lists them")
        else:
            self._answer(line)

    def _show(self, path: str) -> None:
        from igva.data.images import open_image
        from igva.errors import UserError

        if not path:
            raise UserError("name a picture: /image FILE")
        self.pictures.append(open_image(path))
        width, height = self.pictures[-1].size
        print(f"{path}, {width} × {height}: shown with your next message")

    def _weights(self) -> None:
        from igva.cli.ask import weight_bars

        lines = weight_bars(self.last) if self.last is not None else []
        print("\n".join(lines).strip("\n") if lines else "there are no weights yet: ask about a picture first")

    def _next_sampling(self) -> "SamplingOptions | None":
        from dataclasses import replace

        if self.sampling is None or self.sampling.seed is None:
            return self.sampling
        return replace(self.sampling, seed=self.sampling.seed + len(self.chat) // 2)

    def _answer(self, line: str) -> None:
        from igva.answering import reply, user_turn

        chat = [*self.chat, user_turn(line, self.pictures)]
        self.last = reply(
            self.model,
            self.processor,
            chat,
            self.max_new_tokens,
            sampling=self._next_sampling(),
            on_text=lambda text: print(text, end="", flush=True),
        )
        print()
        said = {"role": "assistant", "content": [{"type": "text", "text": self.last.answer}]}
        self.chat, self.pictures = [*chat, said], []

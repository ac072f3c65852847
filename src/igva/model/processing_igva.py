"""``IgvaProcessor``: pictures and a chat → pixel values, tokens, and the instruction of each picture.

Letters: ``I`` images, ``B`` samples, ``T`` user turns, ``S`` tokens.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

from PIL import Image
from transformers import BatchFeature
from transformers.processing_utils import ProcessorMixin

from .pixels import opened, upright_rgb

LARGEST_SQUARE = 4096  # pixels of a side
LONGEST_CROP = 16  # times as long as wide
PRIVATE_USE = range(0xE000, 0xF900), range(0xF0000, 0xFFFFE), range(0x100000, 0x10FFFE)

# What benchmarks and LLaVA's data append to a question to fix the form of the answer. It says nothing about what
# to look for, so it is no part of the instruction. Exact strings (LLaVA-1.5's data and evaluation scripts; MME).
ANSWER_FORMATS = (
    "Answer the question using a single word or phrase.",
    "Answer with the option's letter from the given choices directly.",
    "When the provided information is insufficient, respond with 'Unanswerable'.",
    "Please answer yes or no.",
    "Answer the question with a single word.",
)
# What lmms-eval's CV-Bench, MM-Vet and RefCOCO put before the question for the same purpose.
ANSWER_NOTES = (
    "Note: You only need to respond with A, B, C, D without providing any additional information.",
    "First please perform reasoning, and think step by step to provide best answer to the following question:",
    "Bounding box coordinates are specified in the format (top-left x, top-left y, bottom-right x, bottom-right y). "
    "All values are floating point numbers bounded between 0 and 1. Please provide the bounding box coordinate of the "
    "region this sentence describes:",
)


def instruction_text(turn: str, image_token: str = "<image>") -> str:
    """The bare question of a user turn: without image placeholders and requests for a form of answer.

    Training, chat, server and evaluation all take it from here, so that they cannot differ.
    """
    text = turn.replace(image_token, " ").strip()
    for note in ANSWER_NOTES:
        text = text.removeprefix(note).lstrip()
    stripped = True
    while stripped:
        stripped = False
        for suffix in ANSWER_FORMATS:
            if text.endswith(suffix):
                text = text[: -len(suffix)].rstrip()
                stripped = True
    return text


def pad_to_square(image: Image.Image, color: tuple[int, int, int]) -> Image.Image:
    """The picture centred on a square of its longer side (LLaVA-1.5's ``pad`` aspect ratio).

    A side above ``LARGEST_SQUARE`` is brought down to it first: what costs is the square, not the picture, and a line
    of 20,000 × 4 pixels would make one of 1.2 GB.
    """
    if image.width == image.height:
        return image
    side = max(image.size)
    if side > LARGEST_SQUARE:
        scaled = [max(1, round(length * LARGEST_SQUARE / side)) for length in image.size]
        image, side = image.resize((scaled[0], scaled[1]), Image.Resampling.BICUBIC), LARGEST_SQUARE
    width, height = image.size
    square = Image.new("RGB", (side, side), color)
    square.paste(image, ((side - width) // 2, (side - height) // 2))
    return square


def mean_color(image_processor: Any) -> tuple[int, int, int]:
    """What an image processor takes for the mean of all pixels, 0 to 255; rounded down, as LLaVA-1.5 was trained."""
    mean = getattr(image_processor, "image_mean", None) or (0.5, 0.5, 0.5)
    red, green, blue = (int(channel * 255) for channel in mean)
    return red, green, blue


def within_reach(image: Image.Image) -> Image.Image:
    """Of a long thin picture the part in the middle, ``LONGEST_CROP`` times as long as wide; others as they are.

    For image processors that make the shorter side fit and then crop the middle, which is all that they keep.
    """
    width, height = image.size
    most = LONGEST_CROP * min(width, height)
    if max(width, height) <= most:
        return image
    left, top = max(0, (width - most) // 2), max(0, (height - most) // 2)
    return image.crop((left, top, left + min(width, most), top + min(height, most)))


@dataclass
class TypedSpecials:
    """Special-token strings that somebody typed; in rendered text ``{mark}{number}{mark}`` stands for each."""

    mark: str
    strings: list[str]


class IgvaProcessor(ProcessorMixin):
    """Everything between a user's words and pictures and the model's tensors.

    Args:
        image_processor: resizes and normalises.
        tokenizer: of the language model; ``image_token`` must be one token of it.
        instruction_tokenizer: of the sentence encoder, saved in a folder of its own; None for models that take
            no instruction.
        num_image_tokens: ``N'``, placeholders per picture; the fusion's ``num_tokens``.
        use_instructions: whether instruction rows are made at all.
        pad_images: pad pictures to a square first, as LLaVA-1.5 and IGVA were trained; otherwise the image
            processor resizes and crops them as it is set up.
    """

    def __init__(
        self,
        image_processor: Any = None,
        tokenizer: Any = None,
        instruction_tokenizer: Any = None,
        chat_template: str | None = None,
        image_token: str = "<image>",
        num_image_tokens: int = 576,
        use_instructions: bool = True,
        pad_images: bool = True,
        **kwargs: Any,
    ):
        self.image_token = image_token
        self.image_token_id = tokenizer.convert_tokens_to_ids(image_token)
        self.num_image_tokens = num_image_tokens
        self.pad_images = pad_images
        # A processor has to hold a tokenizer under each of its names; without a sentence encoder it is not used.
        self.use_instructions = use_instructions and instruction_tokenizer is not None
        super().__init__(
            image_processor,
            tokenizer,
            instruction_tokenizer if instruction_tokenizer is not None else tokenizer,
            chat_template=chat_template,
        )
        if self.image_token_id is None or self.image_token_id == tokenizer.unk_token_id:
            raise ValueError(f"the tokenizer has no token {image_token!r}: add it as a special token first")

    # --- text and pictures → tensors --------------------------------------------------------------------------

    def __call__(
        self,
        images: Any = None,
        text: str | Sequence[str] | None = None,
        instructions: Sequence[str | Sequence[str]] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Tokenise rendered prompts and prepare their pictures.

        Args:
            images: a picture, a list, or a list of lists; in the order of the placeholders.
            text: one prompt or several; each ``image_token`` in them stands for one picture.
            instructions: per prompt, its user turns; default: the prompt itself, without its special tokens.
            kwargs: ``padding``, ``padding_side``, ``truncation``, ``max_length``, ``add_special_tokens``,
                ``return_tensors``, ``instruction_shape`` (``(T, S)``: pad the rows to exactly this), flat or in
                ``text_kwargs``.

        Returns:
            ``input_ids`` and ``attention_mask (B, S)``; with pictures ``pixel_values (I, 3, height, width)``,
            ``instruction_input_ids`` and ``instruction_attention_mask (I, T, S)``.

        Raises:
            ValueError: pictures and placeholders differ in number, or truncation would cut a picture's tokens.
        """
        texts = [text] if isinstance(text, str) else list(text or [])
        if instructions is None:
            instructions = [[self.prompt_instruction(sample)] for sample in texts]
        return self._encode(texts, images, instructions, typed=[None] * len(texts), options=kwargs)

    def apply_chat_template(
        self,
        conversation: Any,
        chat_template: str | None = None,
        tokenize: bool = False,
        return_dict: bool = False,
        return_tensors: str | None = None,
        processor_kwargs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> Any:
        """Render one chat or several and, with ``tokenize``, turn them into tensors.

        A message's content is a string, or a list of ``{"type": "text", "text": …}`` and ``{"type": "image",
        "image": PIL image}`` (``path`` and ``url`` are read by the image processor). Every user turn is an
        instruction. Special tokens that stand in somebody's text stay text.

        Args:
            kwargs: options of the tokenizer's ``apply_chat_template`` (``add_generation_prompt``, …) and of
                ``__call__``.

        Returns:
            The rendered text; with ``tokenize`` the ids, or with ``return_dict`` what ``__call__`` returns.
        """
        if not conversation:
            raise ValueError("the chat is empty: give at least one message")
        if kwargs.pop("return_assistant_tokens_mask", False):
            raise ValueError("return_assistant_tokens_mask is not supported: igva.data.labels says what is learnt")
        batched = isinstance(conversation[0], (list, tuple))
        chats = list(conversation) if batched else [conversation]
        options = {
            **(processor_kwargs or {}),
            **{k: kwargs.pop(k) for k in list(kwargs) if k in _CALL_OPTIONS},
        }
        if not tokenize:  # text to look at: nothing to shield
            texts = [self.render([chat_message(m) for m in chat], chat_template, **kwargs) for chat in chats]
            return texts if batched else texts[0]
        shielded = [self.shield(chat) for chat in chats]
        texts = [self.render(messages, chat_template, **kwargs) for messages, _ in shielded]
        images = [
            [item["image"] for m in chat for item in m["content"] if item["type"] == "image"] for chat, _ in shielded
        ]
        if any(image is None for sample in images for image in sample):
            images = options.pop("images", None) or images
        # A template that writes the start token itself must not get a second one.
        options.setdefault("add_special_tokens", not self.starts_with_bos(texts[0]))
        options.setdefault("return_tensors", return_tensors)
        turns = [self.user_turns(chat) for chat in chats]
        data = self._encode(texts, images, turns, typed=[typed for _, typed in shielded], options=options)
        return data if return_dict else data["input_ids"]

    def shield(self, chat: Iterable[dict[str, Any]]) -> tuple[list[dict[str, Any]], TypedSpecials]:
        """Messages whose special tokens are replaced by numbered marks, and what the marks stand for.

        What somebody typed must stay text even where it looks like a control token or an image placeholder.
        """
        messages = [chat_message(m) for m in chat]
        typed = TypedSpecials(_unused_character(messages), [])
        pattern = re.compile("|".join(map(re.escape, self._special_strings())))

        def remember(string: str) -> str:
            typed.strings.append(string)
            return f"{typed.mark}{len(typed.strings) - 1}{typed.mark}"

        for message in messages:
            for is_text, run in itertools.groupby(message["content"], key=lambda item: item["type"] == "text"):
                if is_text:
                    _mark_typed(list(run), pattern, remember)
        return messages, typed

    def render(self, messages: list[dict[str, Any]], chat_template: str | None = None, **kwargs: Any) -> str:
        """Messages with typed content items → the prompt, one ``image_token`` per picture.

        Raises:
            ValueError: there is no chat template, or it does not take such a chat.
        """
        template = chat_template or self.chat_template or self.tokenizer.chat_template
        if template is None:
            raise ValueError("the tokenizer has no chat template: pass chat_template=…")
        form = self.template_form(template)
        if form != "items":
            as_text = [
                [self.image_token if item["type"] == "image" else item["text"] for item in message["content"]]
                for message in messages
            ]
            messages = [
                {**m, "content": "\n".join(t) if form == "text" else [{"type": "text", "text": each} for each in t]}
                for m, t in zip(messages, as_text, strict=True)
            ]
        try:
            return self._apply(messages, template, **kwargs)
        except Exception as error:  # whatever a template raises, or jinja for it
            reason = str(error).strip().partition("\n")[0] or type(error).__name__
            raise ValueError(f"the chat template does not take this chat: {reason}") from error

    def _apply(self, messages: list[dict[str, Any]], template: str, **kwargs: Any) -> str:
        text: str = self.tokenizer.apply_chat_template(messages, chat_template=template, tokenize=False, **kwargs)
        return text

    def template_form(self, template: str) -> str:
        """How a template wants a message's content, found by looking at what it makes of one.

        Returns:
            ``items``: typed items, pictures among them; ``text items``: typed items, but it leaves pictures out or
            calls them otherwise; ``text``: one string.
        """
        known = _FORMS.setdefault(self.tokenizer, {})
        if template not in known:
            text, image = {"type": "text", "text": _PROBE}, {"type": "image", "image": None}
            with_image, alone = self._made_of([image, text], template), self._made_of([text], template)
            if with_image is not None and self.image_token in with_image:
                known[template] = "items"
            else:
                known[template] = "text" if alone is None else "text items"
        return known[template]

    def _made_of(self, content: list[dict[str, Any]], template: str) -> str | None:
        """A user message as a template writes it; None where it refuses the items, loses or only prints them."""
        try:
            rendered = self._apply([{"role": "user", "content": content}], template)
        except Exception:
            return None
        printed = f"'{_PROBE}'" in rendered or f'"{_PROBE}"' in rendered
        return rendered if _PROBE in rendered and not printed else None

    def tokenize(
        self, text: str, typed: TypedSpecials | None = None, add_special_tokens: bool = False
    ) -> tuple[list[int], list[tuple[int, int]]]:
        """Token ids of a rendered prompt, and each one's characters in it (start, end).

        Typed special tokens become the plain characters they are; placeholders are not expanded yet.
        """
        pieces = re.split(f"{typed.mark}(\\d+){typed.mark}", text) if typed and typed.strings else [text]
        ids: list[int] = []
        spans: list[tuple[int, int]] = []
        start = 0
        known: dict[str, Any] = {}
        for i, piece in enumerate(pieces):
            if not piece and i > 0:  # between two marks
                continue
            plain = i % 2 == 1
            width = len(piece) + 2 if plain else len(piece)  # a mark's number stands between two mark characters
            words = typed.strings[int(piece)] if plain and typed else piece
            encoded = known.get(words) if plain else None
            if encoded is None:
                encoded = self.tokenizer(
                    words,
                    add_special_tokens=add_special_tokens and i == 0,
                    split_special_tokens=plain,
                    return_offsets_mapping=True,
                )
            if plain:
                known[words] = encoded  # somebody may have typed the same one many times
            ids += encoded["input_ids"]
            offsets = encoded["offset_mapping"]
            spans += [(start, start + width) if plain else (start + a, start + b) for a, b in offsets]
            start += width
        return ids, spans

    def chat_tokens(self, chat: Iterable[dict[str, Any]], chat_template: str | None = None, **kwargs: Any) -> list[int]:
        """Token ids of one chat, one placeholder per picture; what looks like a special token in it stays text.

        Args:
            kwargs: options of the tokenizer's ``apply_chat_template``.

        Raises:
            ValueError: there is no chat template, or it does not take such a chat.
        """
        messages, typed = self.shield(chat)
        text = self.render(messages, chat_template, **kwargs)
        return self.tokenize(text, typed, add_special_tokens=not self.starts_with_bos(text))[0]

    def expand_placeholders(self, ids: list[int]) -> list[int]:
        """Repeat each image placeholder ``num_image_tokens`` times."""
        expanded: list[int] = []
        for token in ids:
            expanded += [token] * (self.num_image_tokens if token == self.image_token_id else 1)
        return expanded

    def starts_with_bos(self, text: str) -> bool:
        """Whether a rendered prompt begins with the start token already."""
        return bool(self.tokenizer.bos_token) and text.startswith(self.tokenizer.bos_token)

    def user_turns(self, chat: Iterable[dict[str, Any]]) -> list[str]:
        """The instruction of a chat: the bare question of every user turn that has one."""
        turns = []
        for message in map(chat_message, chat):
            if message["role"] == "user":
                text = " ".join(item["text"] for item in message["content"] if item["type"] == "text")
                turns.append(instruction_text(text, self.image_token))
        return [turn for turn in turns if turn]

    def prompt_instruction(self, text: str) -> str:
        """The instruction of a rendered prompt whose chat is not known: its text without special tokens."""
        for token in self._special_strings():
            text = text.replace(token, " ")
        return instruction_text(text, self.image_token)

    def encode_instructions(
        self, instructions: Sequence[Sequence[str]], shape: tuple[int, int] | None = None
    ) -> dict[str, list[list[list[int]]]]:
        """Token rows of the sentence encoder: one row of turns per entry, padded to ``(rows, T, S)``.

        Raises:
            ValueError: a fixed ``shape`` has too few turns.
        """
        rows = [
            [self.instruction_tokenizer(turn, truncation=True)["input_ids"] for turn in turns] for turns in instructions
        ]
        most = max([1, *(len(turns) for turns in rows)])
        longest = max([1, *(len(ids) for turns in rows for ids in turns)])
        turns_wanted, length = shape or (most, longest)
        if most > turns_wanted:
            raise ValueError(f"a chat has {most} user turns, the fixed instruction shape {shape} has room for fewer")
        pad = self.instruction_tokenizer.pad_token_id or 0
        ids, mask = [], []
        for turns in rows:
            kept = [turn[:length] for turn in turns] + [[]] * (turns_wanted - len(turns))
            ids.append([turn + [pad] * (length - len(turn)) for turn in kept])
            mask.append([[1] * len(turn) + [0] * (length - len(turn)) for turn in kept])
        return {"instruction_input_ids": ids, "instruction_attention_mask": mask}

    def prepare_images(self, images: Sequence[Image.Image]) -> Any:
        """PIL pictures → ``pixel_values (I, 3, height, width)``; squares are filled up with the mean colour."""
        pictures = [upright_rgb(image) for image in images]
        if self.pad_images:
            pictures = [pad_to_square(picture, mean_color(self.image_processor)) for picture in pictures]
        elif getattr(self.image_processor, "do_center_crop", False):
            pictures = [within_reach(picture) for picture in pictures]
        return self.image_processor(pictures, return_tensors="pt")["pixel_values"]

    # --- inside -----------------------------------------------------------------------------------------------

    def _encode(
        self,
        texts: list[str],
        images: Any,
        instructions: Any,
        typed: Sequence[TypedSpecials | None],
        options: dict[str, Any],
    ) -> BatchFeature:
        options = {**options.pop("text_kwargs", {}), **options}
        options.pop("images_kwargs", None)
        if unknown := set(options) - _CALL_OPTIONS:
            raise TypeError(f"IgvaProcessor takes no option {sorted(unknown)[0]!r}; it takes {sorted(_CALL_OPTIONS)}")
        flat = [self._picture(item) for item in _flatten(images)]
        special = options.get("add_special_tokens", True)
        rows = [self.tokenize(text, marks, special)[0] for text, marks in zip(texts, typed, strict=True)]
        counts = [ids.count(self.image_token_id) for ids in rows]
        _check_counts(counts, images, len(flat), self.image_token)
        rows = [self.expand_placeholders(ids) for ids in rows]
        if options.get("truncation") and options.get("max_length"):
            rows = [self._truncate(ids, options["max_length"]) for ids in rows]
        data: dict[str, Any] = {"input_ids": rows, "attention_mask": [[1] * len(ids) for ids in rows]}
        if options.get("padding") or len(rows) == 1 or options.get("return_tensors"):
            padding = options.get("padding") or (len(rows) > 1)
            data = dict(
                self.tokenizer.pad(
                    data,
                    padding=padding,
                    max_length=options.get("max_length") if padding == "max_length" else None,
                    pad_to_multiple_of=options.get("pad_to_multiple_of"),
                    # On the left by default, whatever the tokenizer's file says: batches are made to generate from,
                    # and a prompt that ends in padding is answered with nothing. Training pads by itself.
                    padding_side=options.get("padding_side") or "left",
                )
            )
        if options.get("return_attention_mask") is False:
            del data["attention_mask"]
        if flat:
            data["pixel_values"] = self.prepare_images(flat)
            if self.use_instructions:
                per_image = [
                    [turns] if isinstance(turns, str) else list(turns)
                    for turns, count in zip(instructions, counts, strict=True)
                    for _ in range(count)
                ]
                data.update(self.encode_instructions(per_image, options.get("instruction_shape")))
        return BatchFeature(data, tensor_type=options.get("return_tensors"))

    def _picture(self, item: Any) -> Image.Image:
        """A picture as callers have it: what ``pixels.opened`` takes, or a web address."""
        if isinstance(item, str) and item.startswith(("http://", "https://")):
            item = self.image_processor.fetch_images(item)
        return opened(item)

    def _truncate(self, ids: list[int], max_length: int) -> list[int]:
        if len(ids) <= max_length:
            return ids
        lost = ids[max_length:].count(self.image_token_id)
        if lost:
            raise ValueError(
                f"max_length {max_length} would cut {lost} of {ids.count(self.image_token_id)} image tokens "
                f"from a sample of {len(ids)} tokens: raise it, or shorten the text before the image"
            )
        return ids[:max_length]

    def _special_strings(self) -> list[str]:
        added = [str(token) for token in self.tokenizer.added_tokens_decoder.values()]
        return sorted({*self.tokenizer.all_special_tokens, *added, self.image_token}, key=len, reverse=True)


_CALL_OPTIONS = frozenset(
    {
        "add_special_tokens",
        "images",
        "images_kwargs",
        "instruction_shape",
        "max_length",
        "pad_to_multiple_of",
        "padding",
        "padding_side",
        "return_attention_mask",
        "return_tensors",
        "text_kwargs",
        "truncation",
    }
)
_PROBE = "What is to be seen in this picture"
# Tokenizer → template → what ``template_form`` found; a processor's own attributes would be saved with it.
_FORMS: WeakKeyDictionary[Any, dict[str, str]] = WeakKeyDictionary()


def _mark_typed(items: list[dict[str, Any]], pattern: re.Pattern[str], remember: Callable[[str], str]) -> None:
    """Replace special tokens in text items that stand side by side; also those that only joining them would make."""
    joined = "".join(item["text"] for item in items)
    places = [match.span() for match in pattern.finditer(joined)]
    start = 0
    for item in items:
        end, done, text = start + len(item["text"]), start, ""
        for first, last in places:
            if first < end and last > start:
                text += joined[done : max(first, start)] + remember(joined[max(first, start) : min(last, end)])
                done = min(last, end)
        item["text"] = text + joined[done:end]
        start = end


def chat_message(message: dict[str, Any]) -> dict[str, Any]:
    """A chat message with its content as a list of text and image items."""
    content = message.get("content") or []
    if isinstance(content, str):
        return {**message, "content": [{"type": "text", "text": content}]}
    items = []
    for item in content:
        if item["type"] == "text":
            items.append({"type": "text", "text": item["text"]})
        elif item["type"] in ("image", "image_url"):
            url = item.get("image_url")
            source = url.get("url") if isinstance(url, dict) else url
            for key in ("image", "path", "url", "base64"):
                source = item.get(key) if source is None else source
            items.append({"type": "image", "image": source})
        else:
            raise ValueError(f"a message holds an item of type {item['type']!r}; text and image are understood")
    return {**message, "content": items}


def _unused_character(messages: list[dict[str, Any]]) -> str:
    """A private-use character that stands nowhere in this chat."""
    texts = (item["text"] for m in messages for item in m["content"] if item["type"] == "text")
    used = {character for text in texts for character in text}
    free = next((chr(code) for codes in PRIVATE_USE for code in codes if chr(code) not in used), None)
    if free is None:
        raise ValueError("the chat uses every private-use character of Unicode: none is left to mark special tokens")
    return free


def _check_counts(counts: Sequence[int], images: Any, came: int, token: str) -> None:
    """Raise ``ValueError`` where placeholders and pictures differ in number; per sample, if pictures come so."""
    if isinstance(images, (list, tuple)) and any(isinstance(entry, (list, tuple)) for entry in images):
        if len(images) != len(counts):
            raise ValueError(f"{len(counts)} texts came with images for {len(images)}")
        for number, (count, entry) in enumerate(zip(counts, images, strict=True)):
            if count != len(_flatten(entry)):
                raise ValueError(
                    f"sample {number}: the text has {count} {token} placeholders but {len(_flatten(entry))} images came"
                )
    elif sum(counts) != came:
        raise ValueError(f"the text has {sum(counts)} {token} placeholders but {came} images came")


def _flatten(images: Any) -> list[Any]:
    if images is None:
        return []
    if not isinstance(images, (list, tuple)):
        return [images]
    return [image for entry in images for image in _flatten(entry)]

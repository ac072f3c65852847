"""Which tokens of a chat are learnt: the assistant's, found from the rendered template itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from igva.errors import UserError
from igva.model.processing_igva import IgvaProcessor, TypedSpecials

IGNORE = -100

Span = tuple[int, int]  # start and end, in characters of the rendered chat


def encode_supervised(
    processor: IgvaProcessor,
    chat: list[dict[str, Any]],
    *,
    name: str = "sample",
    chat_template: str | None = None,
    max_length: int | None = None,
) -> tuple[list[int], list[int]]:
    """Token ids of a chat and its labels, image placeholders expanded.

    Few templates mark the assistant's part, so it is found by rendering growing prefixes of the chat: the
    assistant's turn is what its message adds after the generation prompt. The end-of-turn token is learnt too;
    white space after it is not.

    Args:
        max_length: longer samples are cut at the end, never inside an image's tokens.

    Raises:
        UserError: the template does not take the chat or is not made of growing prefixes, truncation would cut an
            image, or no token is left to learn; the message names the sample.
    """
    messages, typed = processor.shield(chat)
    try:
        text = processor.render(messages, chat_template)
        spans = [
            _assistant_span(processor, messages, i, text, chat_template, name)
            for i, message in enumerate(messages)
            if message["role"] == "assistant"
        ]
    except ValueError as error:
        raise UserError(f"{name}: {error}: change the sample, or set model.chat_template") from error
    ids, characters = _tokenize(processor, text, typed, spans)
    full_ids: list[int] = []
    labels: list[int] = []
    for token, (start, end) in zip(ids, characters, strict=True):
        if token == processor.image_token_id:
            full_ids += [token] * processor.num_image_tokens
            labels += [IGNORE] * processor.num_image_tokens
            continue
        learnt = end > start and any(a <= start and end <= b for a, b in spans)
        full_ids.append(token)
        labels.append(token if learnt else IGNORE)
    if max_length is not None and len(full_ids) > max_length:
        if processor.image_token_id in full_ids[max_length:]:
            raise UserError(f"{name}: max_length {max_length} would cut image tokens: raise it or drop the sample")
        full_ids, labels = full_ids[:max_length], labels[:max_length]
    if all(label == IGNORE for label in labels):
        raise UserError(f"{name}: no token is left to learn (an empty answer, or max_length {max_length} cut it off)")
    return full_ids, labels


def _assistant_span(
    processor: IgvaProcessor,
    messages: list[dict[str, Any]],
    index: int,
    text: str,
    chat_template: str | None,
    name: str,
) -> Span:
    """The part of ``text`` that message ``index`` adds, without white space behind its end-of-turn token."""
    before = processor.render(messages[:index], chat_template, add_generation_prompt=True)
    after = processor.render(messages[: index + 1], chat_template)
    end = len(after.rstrip())
    if not text.startswith(before) or not text.startswith(after[:end]):
        raise UserError(
            f"{name}: the chat template rewrites earlier turns, so the assistant's tokens cannot be found: "
            "set model.chat_template to one that only appends (chatml, llama3, qwen3 or vicuna_v1)"
        )
    said = "".join(item["text"] for item in messages[index]["content"] if item["type"] == "text").rstrip()
    if said and after.endswith(said, 0, end) and after.startswith("\n", end):
        end += 1  # nothing but a line break ends the turn, as in LLaVA's stage 1: it is what the model has to say
    return len(before), end


def _tokenize(
    processor: IgvaProcessor, text: str, typed: TypedSpecials, spans: Sequence[Span]
) -> tuple[list[int], list[Span]]:
    """Token ids of a rendered chat and their characters; no token reaches across the edge of a span.

    A token that merged the end of the prompt with the start of the answer would be one that no prompt ends with,
    and would leave the answer's first letters unlearnt. The text is cut where that happens, and only there: a
    tokenizer may treat the start of a text in its own way.
    """
    special = not processor.starts_with_bos(text)
    ids, characters = processor.tokenize(text, typed, add_special_tokens=special)
    inside = {character for start, end in characters for character in range(start + 1, end)}
    cuts = sorted(inside.intersection(edge for span in spans for edge in span))
    if not cuts:
        return ids, characters
    ids, characters = [], []
    for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True):
        part, offsets = processor.tokenize(text[start:end], typed, add_special_tokens=special and start == 0)
        ids += part
        characters += [(start + a, start + b) for a, b in offsets]
    return ids, characters

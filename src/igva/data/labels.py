"""Which tokens of a chat are learnt: the assistant's, found from the rendered template itself."""

from __future__ import annotations

from typing import Any

from igva.errors import UserError
from igva.model.processing_igva import IgvaProcessor

IGNORE = -100


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
        UserError: the template is not made of growing prefixes, truncation would cut an image, or no token is
            left to learn; the message names the sample.
    """
    messages, typed = processor.shield(chat)
    text = processor.render(messages, chat_template)
    spans = [
        _assistant_span(processor, messages, i, text, chat_template, name)
        for i, message in enumerate(messages)
        if message["role"] == "assistant"
    ]
    ids, characters = processor.tokenize(text, typed, add_special_tokens=not processor.starts_with_bos(text))
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
) -> tuple[int, int]:
    """Start and end, in characters of ``text``, of what message ``index`` adds."""
    before = processor.render(messages[:index], chat_template, add_generation_prompt=True)
    after = processor.render(messages[: index + 1], chat_template).rstrip()
    if not text.startswith(before) or not text.startswith(after):
        raise UserError(
            f"{name}: the chat template rewrites earlier turns, so the assistant's tokens cannot be found: "
            "use a template that only appends"
        )
    return len(before), len(after)

"""``Igva``: an igva model as lmms-eval asks it."""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from lmms_eval.api.instance import GenerationResult, Instance, TokenCounts
from lmms_eval.api.model import lmms
from PIL import Image
from tqdm import tqdm
from transformers import StoppingCriteria, StoppingCriteriaList

from igva.answering import load
from igva.data.images import open_image
from igva.errors import UserError
from igva.eval.lmms_answers import Answers

# Of a task's generation_kwargs, what is handed to generate() as it is. Others belong to one model of lmms-eval's
# (image_aspect_ratio is LLaVA's) and say nothing to this one.
_SAMPLING = ("temperature", "top_p", "top_k")
_SEARCH = ("num_beams", "repetition_penalty", "length_penalty", "no_repeat_ngram_size")
# Nothing a person would read; lmms-eval's MMBench writes answers into an Excel file, which must not hold them.
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")


class Igva(lmms):
    """Answers chat requests in batches.

    Args:
        pretrained: what ``igva.load`` takes: a name of ``igva models``, a folder, or a hub id.
        batch_size: questions per forward pass; answers do not depend on it in float32.
        device, dtype: as ``igva.load``.
        max_new_tokens: for tasks that do not say how long an answer may be.
    """

    is_simple = False

    def __init__(
        self,
        pretrained: str = "tiny",
        batch_size: int | str = 1,
        device: str | None = None,
        dtype: str | None = None,
        max_new_tokens: int | str = 1024,
    ) -> None:
        super().__init__()
        self.batch_size = positive("batch_size", batch_size)
        self.max_new_tokens = positive("max_new_tokens", max_new_tokens)
        self.model, self.processor = load(pretrained, device, dtype)
        self.answers = Answers()
        self.overlong = 0  # prompts longer than the language model's positions, over all tasks so far

    @property
    def device(self) -> torch.device:
        return self.model.device

    def clean(self) -> None:
        """Keep the model: lmms-eval calls this after each evaluation, and the next task asks the same model."""

    # --- what lmms-eval asks ----------------------------------------------------------------------------------

    def generate_until(self, requests: Sequence[Instance]) -> list[GenerationResult]:
        """One answer per request, in their order.

        Requests with the same generation settings share batches; long prompts go first, so that the largest batch
        comes at once and like lengths stand together. What ``answers`` knows already is not asked.
        """
        found: list[GenerationResult | None] = [self._known(request) for request in requests]
        groups: dict[str, list[int]] = defaultdict(list)
        for i, request in enumerate(requests):
            if found[i] is None:
                groups[json.dumps(request.args[2], sort_keys=True, default=str)].append(i)
        todo = sum(map(len, groups.values()))
        with tqdm(total=len(requests), initial=len(requests) - todo, desc=requests[0].task_name) as bar:
            for indices in groups.values():
                indices.sort(key=lambda i: -len(requests[i].args[0]))
                for start in range(0, len(indices), self.batch_size):
                    batch = indices[start : start + self.batch_size]
                    chats = [self.chat(requests[i]) for i in batch]
                    for i, answer in zip(batch, self.generate(chats, requests[batch[0]].args[2]), strict=True):
                        found[i] = answer
                        self.answers.put(_key(requests[i]), answer.text)
                    bar.update(len(batch))
        return [answer for answer in found if answer is not None]

    def _known(self, request: Instance) -> GenerationResult | None:
        text = self.answers.get(_key(request)) if (request.repeats or 1) == 1 else None  # repeats are samples
        return None if text is None else GenerationResult(text)

    def generate_until_multi_round(self, requests: Sequence[Instance]) -> list[str]:
        raise UserError(f"{requests[0].task_name} asks in several rounds, which igva's lmms-eval model does not answer")

    def loglikelihood(self, requests: Sequence[Instance]) -> list[tuple[float, bool]]:
        raise UserError(f"{requests[0].task_name} asks for likelihoods, not answers: use its generate_until form")

    # --- inside -----------------------------------------------------------------------------------------------

    def chat(self, request: Instance) -> list[dict[str, Any]]:
        """The messages of a request, pictures where the task has put them, as the processor takes them."""
        _, doc_to_messages, _, doc_id, task, split = request.args
        return chat_of(doc_to_messages(self.task_dict[task][split][doc_id]), task)

    @torch.inference_mode()
    def generate(self, chats: Sequence[list[dict[str, Any]]], settings: dict[str, Any]) -> list[GenerationResult]:
        """Answers to a batch of chats under one task's ``generation_kwargs``."""
        inputs = self.processor.apply_chat_template(
            list(chats), tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True, padding=True
        ).to(self.model.device)
        prompt = inputs["input_ids"].shape[1]
        lengths = inputs["attention_mask"].sum(dim=1).tolist()
        room = getattr(self.model.config.text_config, "max_position_embeddings", None) or prompt
        self.overlong += sum(length > room for length in lengths)
        until = stops(settings)
        stopping = [_StopStrings(self.processor.tokenizer, until, prompt)] if until else []
        ids = self.model.generate(
            **inputs,
            **generation_options(settings, self.max_new_tokens),
            stopping_criteria=StoppingCriteriaList(stopping),
        )[:, prompt:]
        texts = self.processor.tokenizer.batch_decode(ids, skip_special_tokens=True)
        return [
            GenerationResult(
                _CONTROL.sub("", cut(text, until)).strip(), TokenCounts(input_tokens=length, output_tokens=len(row))
            )
            for text, length, row in zip(texts, lengths, ids, strict=True)
        ]


def _key(request: Instance) -> str:
    """What tells a question of a task from its others."""
    return f"{request.args[-1]}/{request.args[-2]}/{request.args[-3]}/{request.idx}"


def positive(name: str, value: int | str) -> int:
    """The whole number above 0 that an option says, or ``UserError``."""
    if not str(value).isdigit() or int(value) < 1:
        raise UserError(f"{name} must be a whole number above 0, not {value!r}")
    return int(value)


def chat_of(messages: Sequence[dict[str, Any]], task: str) -> list[dict[str, Any]]:
    """lmms-eval's messages → the processor's: pictures are opened, anything but text and pictures is refused."""
    return [{"role": m["role"], "content": [_item(item, task) for item in _items(m["content"])]} for m in messages]


def _items(content: Any) -> list[dict[str, Any]]:
    return [{"type": "text", "text": content}] if isinstance(content, str) else content


def _item(item: dict[str, Any], task: str) -> dict[str, Any]:
    if item["type"] == "text":
        return {"type": "text", "text": item["text"]}
    if item["type"] != "image":
        raise UserError(f"{task} shows {item['type']}, igva sees pictures only: leave the task out")
    picture = item["url"]
    return {"type": "image", "image": picture if isinstance(picture, Image.Image) else open_image(picture)}


def stops(settings: dict[str, Any]) -> tuple[str, ...]:
    """The strings that end an answer."""
    until = settings.get("until") or ()
    return tuple(stop for stop in ([until] if isinstance(until, str) else until) if stop)


def cut(text: str, until: Sequence[str]) -> str:
    """The text before the first stop string."""
    return text[: min([len(text), *(text.find(stop) for stop in until if stop in text)])]


def generation_options(settings: dict[str, Any], max_new_tokens: int) -> dict[str, Any]:
    """A task's ``generation_kwargs`` → options of ``generate()``.

    ``do_sample`` decides where the task says it; else a temperature above 0 samples.
    """
    sample = bool(settings.get("do_sample", float(settings.get("temperature") or 0) > 0))
    kept = (*_SAMPLING, *_SEARCH) if sample else _SEARCH
    options = {key: settings[key] for key in kept if settings.get(key) is not None}
    if not sample:  # what the checkpoint's own generation settings say would only be warned about
        options.update(dict.fromkeys(_SAMPLING))
    return {"max_new_tokens": int(settings.get("max_new_tokens") or max_new_tokens), "do_sample": sample, **options}


class _StopStrings(StoppingCriteria):
    """Ends a row once its new text holds a stop string; what follows the string is cut off afterwards."""

    def __init__(self, tokenizer: Any, until: Sequence[str], prompt: int) -> None:
        self._tokenizer, self._until, self._prompt = tokenizer, until, prompt
        # A token holds at least one byte of text, but a string may begin or end inside one.
        self._tail = max(len(stop.encode()) for stop in until) + 1

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor, **kwargs: Any) -> torch.Tensor:
        tails = self._tokenizer.batch_decode(input_ids[:, self._prompt :][:, -self._tail :], skip_special_tokens=True)
        done = [any(stop in text for stop in self._until) for text in tails]
        return torch.tensor(done, dtype=torch.bool, device=input_ids.device)

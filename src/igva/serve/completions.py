"""One chat request: from its pictures to the answer, whole or as a stream."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from igva.serve.engine import Engine, Event, Failed, Finished, Job, Started, Token
from igva.serve.failure import Refusal, overloaded
from igva.serve.limits import Limits
from igva.serve.metrics import Metrics
from igva.serve.pictures import PictureSource
from igva.serve.prompt import Prompt, PromptMaker
from igva.serve.protocol import ChatRequest, Envelope, usage
from igva.serve.sampling import Sampling


class Completions:
    """Answers chat requests.

    Args:
        name: the model's, in responses.
    """

    def __init__(
        self, name: str, engine: Engine, maker: PromptMaker, source: PictureSource, metrics: Metrics, limits: Limits
    ):
        self.name, self.engine, self.maker, self.source = name, engine, maker, source
        self.metrics, self.limits = metrics, limits
        self._coming, self._places = 0, asyncio.Semaphore(limits.preparing)

    async def begin(self, request: ChatRequest) -> Conversation:
        """Get the pictures, and queue the answers.

        Raises:
            Refusal: the request cannot be answered.
        """
        request.check(self.limits)
        began = time.perf_counter()
        async with self.preparing():
            pictures = [await self.source.get(url) for url in request.image_urls()]
            request.let_go()
            prompt = await asyncio.to_thread(self.maker.make, request.chat(), pictures)
        return Conversation(self, request, prompt, began)

    @asynccontextmanager
    async def preparing(self) -> AsyncIterator[None]:
        """A place among the requests that are made ready for the engine.

        Raises:
            Refusal: as many are waiting for one as may wait for the engine.
        """
        if self._coming >= self.limits.waiting:
            raise overloaded()
        self._coming += 1
        try:
            async with self._places:
                yield
        finally:
            self._coming -= 1

    def sampling(self, request: ChatRequest, choice: int) -> Sampling:
        """The request's wishes; what it leaves open is the model's own generation config."""
        own = self.engine.model.generation_config
        default = float(own.temperature if own.temperature is not None else 1.0) if own.do_sample else 0.0
        return Sampling(
            max_new_tokens=min(request.new_tokens or self.limits.new_tokens, self.limits.new_tokens),
            min_new_tokens=request.min_tokens or 0,
            temperature=default if request.temperature is None else request.temperature,
            top_p=request.top_p if request.top_p is not None else float(own.top_p or 1.0) if own.do_sample else 1.0,
            seed=None if request.seed is None else request.seed + choice,
            stops=tuple(request.stops),
            top_logprobs=(request.top_logprobs or 0) if request.logprobs else None,
        )


class Conversation:
    """The answers to one request: ``start``, then ``whole`` or ``stream``. ``close`` frees their places."""

    def __init__(self, completions: Completions, request: ChatRequest, prompt: Prompt, began: float):
        self.completions, self.request, self.prompt, self.began = completions, request, prompt, began
        self.envelope = Envelope(completions.name)
        self.events: asyncio.Queue[tuple[int, Event]] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self.jobs = [self._job(index, loop) for index in range(request.n or 1)]
        self.left = len(self.jobs)
        self._weights: dict[str, Any] = {}
        completions.engine.submit(self.jobs)

    def _job(self, index: int, loop: asyncio.AbstractEventLoop) -> Job:
        def emit(event: Event) -> None:
            loop.call_soon_threadsafe(self.events.put_nowait, (index, event))

        return Job(self.prompt, self.completions.sampling(self.request, index), emit)

    def close(self) -> None:
        """The answers are complete, or nobody wants them any more."""
        for job in self.jobs:
            job.cancel()
        if self.left:
            self.completions.metrics.disconnects.inc()
            self.left = 0

    async def _each(self) -> AsyncIterator[tuple[int, Event]]:
        """The events of all answers until every one is finished; raises ``Refusal`` where one fails."""
        waiting_for_first = True
        while self.left:
            index, event = await self.events.get()
            if isinstance(event, Failed):
                self.left = 0
                raise event.refusal
            if waiting_for_first and isinstance(event, Token):
                self.completions.metrics.first_token.observe(time.perf_counter() - self.began)
                waiting_for_first = False
            if isinstance(event, Finished):
                self.left -= 1
            yield index, event
        self.completions.metrics.duration.observe(time.perf_counter() - self.began)

    async def whole(self) -> dict[str, Any]:
        """All answers, as the body of one response."""
        texts, logprobs = [""] * len(self.jobs), [list[Any]() for _ in self.jobs]
        reasons, tokens = ["stop"] * len(self.jobs), 0
        async for index, event in self._each():
            if isinstance(event, Token):
                texts[index] += event.text
                logprobs[index] += [event.logprobs] if event.logprobs else []
            elif isinstance(event, Finished):
                texts[index] += event.text
                reasons[index] = event.reason
                tokens += event.tokens
        choices = [
            {
                "index": index,
                "message": {"role": "assistant", "content": texts[index], "refusal": None},
                "finish_reason": reasons[index],
                "logprobs": {"content": logprobs[index], "refusal": None} if self.request.logprobs else None,
            }
            for index in range(len(self.jobs))
        ]
        return self.envelope.completion(choices, usage(len(self.prompt.ids), tokens), self._weights)

    async def stream(self) -> AsyncIterator[bytes]:
        """All answers, as server-sent events."""
        tokens = 0
        try:
            for index in range(len(self.jobs)):
                yield _sse(self.envelope.chunk(index, {"role": "assistant", "content": ""}, igva=self._weights))
            async for index, event in self._each():
                if isinstance(event, Token) and (event.text or event.logprobs):
                    listed = [event.logprobs] if event.logprobs else None
                    yield _sse(self.envelope.chunk(index, {"content": event.text}, logprobs=listed))
                elif isinstance(event, Finished):
                    tokens += event.tokens
                    if event.text:
                        yield _sse(self.envelope.chunk(index, {"content": event.text}))
                    yield _sse(self.envelope.chunk(index, {}, event.reason, igva=self._weights))
            if self.request.stream_options and self.request.stream_options.include_usage:
                yield _sse(self.envelope.usage_chunk(usage(len(self.prompt.ids), tokens)))
            yield b"data: [DONE]\n\n"
        except Refusal as refusal:  # too late for a status
            yield _sse(refusal.body())

    async def start(self) -> None:
        """Wait until the model has read the request; what fails until then can still be a plain error."""
        _, event = await self.events.get()  # answers are taken in their order: the first event is the first one's
        if not isinstance(event, Started):
            self.left = 0
            raise event.refusal if isinstance(event, Failed) else RuntimeError(event)
        self._weights = _weight_field(event)


def _weight_field(started: Started) -> dict[str, Any]:
    """How the layers were mixed: one list of weights for one picture, one per picture for several.

    ``layer_names`` is there where layers have names.
    """
    rows = started.weights
    weights = rows[0] if rows is not None and len(rows) == 1 else rows
    names = {} if started.names is None else {"layer_names": started.names}
    return {"layer_groups": started.groups, **names, "layer_weights": weights}


def _sse(chunk: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk, ensure_ascii=False)}\n\n".encode()

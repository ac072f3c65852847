"""One thread that owns the model: it takes answers as they come, and gives every running one a token a turn."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from threading import Condition, Thread
from typing import Any, TypeVar

import torch
from torch import Tensor

from igva.answering import layer_weights
from igva.model.modeling_igva import IgvaForConditionalGeneration, IgvaImageFeatures
from igva.model.processing_igva import IgvaProcessor
from igva.serve.failure import Refusal, overloaded
from igva.serve.layer_store import LayerStore
from igva.serve.limits import Limits
from igva.serve.memory import give_back
from igva.serve.pace import CHUNK_TOKENS, Pace
from igva.serve.prompt import Prompt
from igva.serve.running import Arrival, Entry, RunningBatch
from igva.serve.sampling import Sampler, Sampling
from igva.serve.token_text import TokenText, token_bytes

LOG = logging.getLogger("igva.serve")
PREFILL_TOKENS = 2048  # of answers that join together

Result = TypeVar("Result")


@dataclass(frozen=True)
class Token:
    """A token of an answer: its text (may be empty), and log probabilities where they are wanted."""

    text: str
    logprobs: dict[str, Any] | None = None


@dataclass(frozen=True)
class Started:
    """The pictures' layer weights: as in ``answering.layer_weights``."""

    groups: list[list[int]]
    names: list[str] | None
    weights: list[list[float]] | None


@dataclass(frozen=True)
class Finished:
    """``reason``: ``stop`` or ``length``; ``text`` is what was held back; ``tokens`` of the answer, the end counted."""

    reason: str
    tokens: int
    text: str


@dataclass(frozen=True)
class Failed:
    """The answer cannot be given."""

    refusal: Refusal


Event = Started | Token | Finished | Failed


@dataclass(eq=False)
class Job:
    """One answer on its way; ``cancel`` may be called from any thread."""

    prompt: Prompt
    sampling: Sampling
    emit: Callable[[Event], None]
    cancelled: bool = False
    tokens: list[int] = field(default_factory=list)
    sampler: Sampler | None = None
    text: TokenText | None = None

    def cancel(self) -> None:
        self.cancelled = True


@dataclass
class Counts:
    """What the engine has done since it started."""

    tower_runs: int = 0  # pictures that went through the vision tower
    prompt_tokens: int = 0
    new_tokens: int = 0
    turns: int = 0


class Engine:
    """Generates answers in batches that change with every token.

    Args:
        store: layer means of recent pictures; filled here.
    """

    def __init__(
        self, model: IgvaForConditionalGeneration, processor: IgvaProcessor, store: LayerStore, limits: Limits
    ):
        self.model, self.processor, self.store, self.limits = model, processor, store, limits
        self.counts = Counts()
        self.context = int(getattr(model.config.text_config, "max_position_embeddings", 0) or 2**31)
        self._ends = _end_tokens(model, processor)
        self._never = list(model.generation_config.suppress_tokens or ())  # a picture's placeholder, for one
        self._batch: RunningBatch[Job] = RunningBatch(model)
        self._waiting: deque[Job] = deque()
        self._alone: deque[Job] = deque()  # joined with others, and one of them failed
        self._arriving: list[Arrival[Job]] = []  # at most one of a long prompt, and what overtakes it
        self._oldest = False  # whether the oldest of those that arrive had the last turn
        self._pace = Pace()
        self._calls: deque[tuple[Callable[[], Any], Future[Any]]] = deque()
        self._wake = Condition()
        self._stopping = False
        self._thread = Thread(target=self._run, name="igva-engine", daemon=True)

    def start(self) -> None:
        """Begin to work."""
        self._thread.start()

    def stop(self) -> None:
        """Fail what is unfinished and end the thread."""
        with self._wake:
            self._stopping = True
            self._wake.notify()
        self._thread.join()

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    @property
    def running(self) -> int:
        return len(self._batch.who)

    @property
    def waiting(self) -> int:
        return len(self._waiting) + len(self._alone)

    def submit(self, jobs: Sequence[Job]) -> None:
        """Queue the answers to one request.

        Raises:
            Refusal: too many are waiting already, or the prompt leaves no room for an answer.
        """
        for job in jobs:
            if len(job.prompt.ids) >= self.context:
                raise Refusal(
                    400,
                    f"the prompt has {len(job.prompt.ids)} tokens; the model takes {self.context}, answer included",
                    "messages",
                    "context_length_exceeded",
                )
        with self._wake:
            self._check_room(len(jobs))
            self._waiting.extend(jobs)
            self._wake.notify()

    def call(self, function: Callable[[], Result]) -> Future[Result]:
        """Run something else with the model, between two tokens; it takes a place among what waits.

        Raises:
            Refusal: too many are waiting already.
        """
        future: Future[Result] = Future()
        with self._wake:
            self._check_room(1)
            self._calls.append((function, future))
            self._wake.notify()
        return future

    def _check_room(self, wanted: int) -> None:
        if len(self._waiting) + len(self._calls) + wanted > self.limits.waiting or self._stopping:
            raise overloaded()

    # --- the thread -------------------------------------------------------------------------------------------

    @torch.inference_mode()
    def _run(self) -> None:
        while True:
            with self._wake:
                if not self._busy():
                    give_back()
                self._wake.wait_for(lambda: self._stopping or self._busy())
                if self._stopping:
                    break
                call = self._calls.popleft() if self._calls else None
                joining = self._next()
            if call is not None:
                _fulfil(*call)
            self._begin(joining)
            self._prefill()
            self._step()
        arriving = [entry.who for arrival in self._arriving for entry in arrival.entries]
        for job in [*self._waiting, *self._alone, *arriving, *self._batch.who]:
            _tell(job, Failed(Refusal(503, "the server is shutting down")))

    def _busy(self) -> bool:
        return bool(self._waiting or self._alone or self._calls or self._arriving or self._batch.who)

    def _next(self) -> list[Job]:
        """The answers that join now: as many as there is room for, without keeping the others waiting too long.

        Of prompts of more than a chunk one at a time is on its way, alone; shorter ones overtake it.
        """
        long_ones = sum(arrival.length > CHUNK_TOKENS for arrival in self._arriving)
        if len(self._arriving) > long_ones:
            return []
        if self._alone and not (long_ones and len(self._alone[0].prompt.ids) > CHUNK_TOKENS):
            return [self._alone.popleft()]
        if not self._waiting:
            return []
        self._waiting = deque(job for job in self._waiting if not job.cancelled)
        room = self.limits.active - self.running - sum(len(arrival.entries) for arrival in self._arriving)
        jobs: list[Job] = []
        longest = 0
        for job in list(self._waiting):
            length = len(job.prompt.ids)
            if length > CHUNK_TOKENS and (jobs or long_ones):
                continue
            longest = max(longest, length)
            if len(jobs) >= room or (jobs and longest * (len(jobs) + 1) > PREFILL_TOKENS):
                break
            jobs.append(job)
            self._waiting.remove(job)
            if length > CHUNK_TOKENS:
                break
        return jobs

    def _begin(self, jobs: Sequence[Job]) -> None:
        """Look at the pictures; who fails here leaves the others to join."""
        entries = []
        images: dict[int, IgvaImageFeatures | None] = {}  # several answers to one prompt look at it once
        for job in jobs:
            try:
                if id(job.prompt) not in images:
                    images[id(job.prompt)] = self._features(job.prompt)
                image = images[id(job.prompt)]
                job.sampler = Sampler(job.sampling, self.model.device)
                job.text = TokenText(self.processor.tokenizer, job.sampling.stops)
                entries.append(Entry(job, job.prompt.ids, image))
            except Exception:
                _fail(job)
        if entries:
            self._arriving.append(Arrival(self.model, entries))

    def _prefill(self) -> None:
        """Some more tokens of those that join; once they are through they are in the batch, all of them or none.

        Where that fails they join one by one, so that nobody fails for another's sake.
        """
        self._arriving = [each for each in self._arriving if not all(entry.who.cancelled for entry in each.entries)]
        if not self._arriving:
            return
        # By turns the oldest and the shortest: a short one overtakes, and the long one is not held up for ever.
        self._oldest = not self._oldest
        arriving = self._arriving[0] if self._oldest else min(self._arriving, key=lambda each: each.length)
        jobs = [entry.who for entry in arriving.entries]
        others = bool(self._batch.who) or len(self._arriving) > 1
        try:
            most = min(CHUNK_TOKENS, self._pace.piece(others), arriving.left)
            with self._pace.reading(most):
                logits = arriving.advance(most)
            if logits is None:
                return
            self._batch.admit(arriving)
        except Exception:
            self._arriving.remove(arriving)
            if len(jobs) == 1:
                _fail(jobs[0])
            else:
                LOG.warning("answers could not join together", exc_info=True)
                self._alone.extend(jobs)
            return
        self._arriving.remove(arriving)
        for entry in arriving.entries:
            self.counts.prompt_tokens += len(entry.ids)
            _tell(entry.who, Started(*layer_weights(self.model, entry.image)))
        self._advance(logits, list(range(self.running - len(jobs), self.running)))

    def _step(self) -> None:
        self._drop()
        if not self._batch.who:
            return
        try:
            with self._pace.step():
                logits = self._batch.step([job.tokens[-1] for job in self._batch.who])
        except Exception:
            LOG.exception("the model failed")
            for job in self._batch.who:
                _tell(job, Failed(_failure()))
                job.cancel()
            self._drop()
            return
        self.counts.turns += 1
        self._advance(logits, list(range(self.running)))

    def _advance(self, logits: Tensor, rows: list[int]) -> None:
        """Give each of these rows its token; those that end with it leave, and those that fail."""
        jobs = [self._batch.who[row] for row in rows]
        plain = logits.clone() if any(job.sampling.top_logprobs is not None for job in jobs) else logits
        logits[:, self._never] = -torch.inf
        for scores, job in zip(logits, jobs, strict=True):
            if len(job.tokens) < job.sampling.min_new_tokens:
                scores[list(self._ends)] = -torch.inf
        # One wait for the device, not one a row.
        best = zip(*(each.tolist() for each in logits.max(dim=-1)), strict=True)
        for job, scores, own, likeliest in zip(jobs, logits, plain, best, strict=True):
            try:
                self._give(job, scores, own, likeliest)
            except Exception:
                _fail(job)
        self._drop()

    def _give(self, job: Job, scores: Tensor, plain: Tensor, likeliest: tuple[float, int]) -> None:
        """One answer's next token.

        Args:
            scores: logits ``(V,)`` to choose from; ``plain``: as the model gave them.
            likeliest: the highest of the scores, and whose it is.
        """
        if job.cancelled or job.sampler is None or job.text is None:
            return
        token = job.sampler.pick(scores, *likeliest)
        job.tokens.append(token)
        self.counts.new_tokens += 1
        ended = token in self._ends
        if not ended:
            logprobs = job.sampler.log_probabilities(plain, token)
            _tell(job, Token(job.text.push(token), self._named(token, logprobs)))
        full = len(job.tokens) >= min(job.sampling.max_new_tokens, self.context - len(job.prompt.ids))
        if ended or job.text.stopped or full:
            reason = "stop" if ended or job.text.stopped else "length"
            _tell(job, Finished(reason, len(job.tokens), job.text.end()))
            job.cancel()

    def _drop(self) -> None:
        """Answers that are finished or no longer wanted leave."""
        rows = [row for row, job in enumerate(self._batch.who) if not job.cancelled]
        if len(rows) < self.running:
            self._batch.keep(rows)

    def _features(self, prompt: Prompt) -> IgvaImageFeatures | None:
        if not prompt.keys:
            return None
        for key, pixels in prompt.pixels.items():
            known = self.store.get(key)  # another request may have brought it meanwhile
            if known is None:
                known = self.model.model.encode_image_layers(pixels.to(self.model.device))
                self.counts.tower_runs += 1
                self.store.put(key, known)
            prompt.layers[key] = known
        layers = [prompt.layers[key] for key in prompt.keys]
        prompt.pixels.clear()
        return self.model.get_image_features(
            layer_patches=torch.cat([each.patches for each in layers]),
            layer_descriptors=torch.cat([each.descriptors for each in layers]),
            **{name: value.to(self.model.device) for name, value in prompt.instruction.items()},
        )

    def _named(self, token: int, logprobs: tuple[float, list[tuple[int, float]]] | None) -> dict[str, Any] | None:
        """OpenAI's entry of one token."""
        if logprobs is None:
            return None
        own, best = logprobs
        return self._entry(token, own) | {"top_logprobs": [self._entry(*pair) for pair in best]}

    def _entry(self, token: int, logprob: float) -> dict[str, Any]:
        text = self.processor.tokenizer.decode([token])
        own = list(token_bytes(self.processor.tokenizer, token))
        return {"token": text, "logprob": max(logprob, -9999.0), "bytes": own}


def _tell(job: Job, event: Event) -> None:
    """Hand an event over; where nobody listens any more the answer is not wanted."""
    try:
        job.emit(event)
    except Exception:
        job.cancel()


def _fail(job: Job) -> None:
    """Of the error that is being handled: this answer ends, no other."""
    LOG.exception("the model failed on a request")
    _tell(job, Failed(_failure()))
    job.cancel()


def _failure() -> Refusal:
    return Refusal(500, "the model failed on this request")


def _fulfil(function: Callable[[], Any], future: Future[Any]) -> None:
    if not future.set_running_or_notify_cancel():  # nobody waits for it any more
        return
    try:
        future.set_result(function())
    except Exception as error:
        future.set_exception(error)


def _end_tokens(model: IgvaForConditionalGeneration, processor: IgvaProcessor) -> frozenset[int]:
    ends = model.generation_config.eos_token_id
    listed = ends if isinstance(ends, list) else [ends]
    return frozenset(token for token in (*listed, processor.tokenizer.eos_token_id) if token is not None)

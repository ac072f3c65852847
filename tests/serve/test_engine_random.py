"""Random comings, failures and goings: every answer that is given is the one that ``generate`` gives alone."""

from __future__ import annotations

import io
import queue
import random

import pytest
import torch

from igva.answering import user_turn
from igva.data.images import open_image
from igva.serve.engine import Engine, Failed, Finished, Job, Started, Token
from igva.serve.layer_store import LayerStore
from igva.serve.limits import Limits
from igva.serve.pictures import Picture
from igva.serve.prompt import PromptMaker
from igva.serve.sampling import Sampling

from .conftest import noise, stirred

QUESTIONS = (
    "What?",
    "Where is the old green chair of this room?",
    "Is it red? " * 12,
    "Why?",
    "Read the sign, please.",
)
LONGEST = 24


class Client:
    """A question, how it will go wrong if it will, and what came back."""

    def __init__(self, engine: Engine, maker: PromptMaker, rng: random.Random):
        self.question, self.pictures = rng.choice(QUESTIONS), tuple(rng.sample(range(3), rng.choice((0, 1, 1, 2))))
        self.tokens, self.trouble = rng.randint(1, LONGEST), rng.choice((None, None, None, "prompt", "sampler", "ear"))
        turn = user_turn(self.question, [None] * len(self.pictures))
        prompt = maker.make([turn], [Picture.of(noise(number)) for number in self.pictures])
        sampling = Sampling(max_new_tokens=self.tokens, temperature=rng.choice((0.0, 1e-40, 1e-9)))
        self.events: queue.Queue = queue.Queue()
        self.job = Job(prompt, sampling, self.hear)
        if self.trouble == "prompt":
            prompt.ids.append(engine.processor.image_token_id)  # a placeholder without a picture
        self.leaves_after = rng.randint(0, self.tokens) if rng.random() < 0.2 else None
        self.text, self.heard, self.started, self.end = "", 0, 0, None

    def hear(self, event) -> None:
        if self.trouble == "sampler" and isinstance(event, Started):
            self.job.sampler.pick = lambda *_: 1 / 0
        if self.trouble == "ear" and isinstance(event, Token):
            raise RuntimeError("nobody listens")
        self.started += isinstance(event, Started)
        if isinstance(event, Token):
            self.heard += 1
            self.text += event.text
        if isinstance(event, Finished):
            self.text += event.text
        if isinstance(event, (Finished, Failed)):
            self.end = event
        if self.leaves_after is not None and self.heard >= self.leaves_after:
            self.job.cancel()


@pytest.mark.parametrize("turns", [300, pytest.param(10_000, marks=[pytest.mark.slow, pytest.mark.timeout(1800)])])
def test_every_answer_is_its_own(turns, monkeypatch):
    monkeypatch.setattr("igva.serve.engine.CHUNK_TOKENS", 16)  # prompts of many chunks
    model, processor = stirred()
    model.double()  # in single precision two tokens are sometimes as likely, and the company decides
    engine = Engine(model, processor, LayerStore(2**20), Limits(active=5, waiting=40))
    maker = PromptMaker(processor, engine.store, lambda p: open_image(io.BytesIO(p.data)))
    rng, clients = random.Random(0), list[Client]()
    engine.start()
    try:
        while engine.counts.turns < turns:
            arriving = [Client(engine, maker, rng) for _ in range(rng.randint(1, 6))]
            if engine.waiting < 30:
                engine.submit([client.job for client in arriving])
                clients += arriving
            target = engine.counts.turns + rng.randint(0, 8)
            while engine.counts.turns < target and (engine.running or engine.waiting):
                engine.call(lambda: None).result(20)
        while not all(client.end is not None or client.job.cancelled for client in clients):
            engine.call(lambda: None).result(20)
        assert engine.alive
    finally:
        engine.stop()

    alone: dict[tuple, list[int]] = {}
    kinds = {"right": 0, "failed": 0, "left": 0}
    for client in clients:
        key = client.question, client.pictures
        if key not in alone:
            alone[key] = expected(model, processor, *key)
        right = processor.tokenizer.decode(alone[key][: client.tokens], skip_special_tokens=True)
        if client.trouble in ("prompt", "sampler") and client.end is not None:
            assert isinstance(client.end, Failed), client.trouble
            kinds["failed"] += 1
        elif client.trouble == "ear" or client.leaves_after is not None:
            kinds["left"] += 1
            assert right.startswith(client.text)
        else:
            assert isinstance(client.end, Finished) and client.started == 1
            assert client.text == right, client.question
            kinds["right"] += 1
    assert min(kinds.values()) > len(clients) // 20, kinds


@torch.inference_mode()
def expected(model, processor, question, pictures) -> list[int]:
    images = [open_image(io.BytesIO(noise(number))) for number in pictures]
    inputs = processor.apply_chat_template(
        [user_turn(question, images)], tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    new = model.generate(**inputs, max_new_tokens=LONGEST, do_sample=False)
    return new[0, inputs["input_ids"].shape[1] :].tolist()

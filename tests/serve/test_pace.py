"""Pieces of a prompt are as long as the others can bear."""

import queue

from igva.answering import user_turn
from igva.serve import pace
from igva.serve.engine import Engine, Finished, Job
from igva.serve.layer_store import LayerStore
from igva.serve.limits import Limits
from igva.serve.pace import Pace
from igva.serve.prompt import PromptMaker
from igva.serve.sampling import Sampling

from .conftest import stirred


def timed(monkeypatch, seconds):
    """A clock that moves by these seconds between two looks, over and over."""
    now = [0.0]

    def look():
        now[0] += seconds[0]
        return now[0]

    monkeypatch.setattr(pace.time, "perf_counter", look)


def test_a_piece_takes_as_long_as_a_token_of_the_others(monkeypatch):
    seconds, own = [0.05], Pace()
    timed(monkeypatch, seconds)
    with own.step():
        pass
    seconds[0] = 0.1
    with own.reading(100):  # a millisecond a token
        pass
    assert own.piece(True) == 50 and own.piece(False) == 200
    seconds[0] = 2.0
    with own.reading(100):  # far into a long prompt: 20 ms a token
        pass
    assert own.piece(True) == own.piece(False) == pace.LEAST_TOKENS
    seconds[0] = 0.001
    with own.reading(100):
        pass
    assert own.piece(False) == pace.CHUNK_TOKENS


def test_before_anything_is_known_it_is_careful():
    assert Pace().piece(True) == Pace().piece(False) == 64


def test_a_piece_is_no_longer_than_what_is_left(monkeypatch):
    """A short prompt must not be timed as if it were a long piece: the next long one would be read too fast."""
    read: list[int] = []
    reading = Pace.reading

    def noted(self, tokens):
        read.append(tokens)
        return reading(self, tokens)

    monkeypatch.setattr(Pace, "reading", noted)
    model, processor = stirred()
    engine = Engine(model, processor, LayerStore(2**20), Limits(active=2, waiting=4))
    prompt = PromptMaker(processor, engine.store, lambda picture: None).make([user_turn("What?", [])], [])
    events: queue.Queue = queue.Queue()
    engine.start()
    try:
        engine.submit([Job(prompt, Sampling(max_new_tokens=1), events.put)])
        while not isinstance(events.get(timeout=60), Finished):
            pass
    finally:
        engine.stop()
    assert sum(read) == len(prompt.ids)

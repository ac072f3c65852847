"""The thread that owns the model: failures stay where they belong."""

from __future__ import annotations

import io
import queue
import threading

import pytest

from igva.serve.engine import Engine, Failed, Finished, Job
from igva.serve.failure import Refusal
from igva.serve.layer_store import LayerStore
from igva.serve.limits import Limits
from igva.serve.pictures import Picture
from igva.serve.prompt import PromptMaker
from igva.serve.sampling import Sampling
from igva.testing import ENSEMBLE

from .conftest import noise, stirred


@pytest.fixture
def engine(small):
    running = Engine(*small, LayerStore(2**20), Limits(active=4, waiting=6))
    running.start()
    yield running
    running.stop()


def job(engine, question="What?", pictures=(), tokens=4):
    """A job, and the queue of its events."""
    from igva.answering import user_turn
    from igva.data.images import open_image

    maker = PromptMaker(engine.processor, engine.store, lambda p: open_image(io.BytesIO(p.data)))
    prompt = maker.make([user_turn(question, [None] * len(pictures))], [Picture.of(data) for data in pictures])
    events: queue.Queue = queue.Queue()
    return Job(prompt, Sampling(max_new_tokens=tokens), events.put), events


def last(events):
    while not isinstance(event := events.get(timeout=20), (Finished, Failed)):
        pass
    return event


def test_nobody_fails_for_anothers_sake(engine):
    """One of four that join together cannot be run."""
    gate = threading.Event()
    engine.call(gate.wait)  # all four are there before the first joins
    jobs = [job(engine, f"What is {number}?", [noise(number)]) for number in range(4)]
    jobs[2][0].prompt.ids.remove(engine.processor.image_token_id)  # one placeholder too few
    engine.submit([each for each, _ in jobs])
    gate.set()
    ends = [last(events) for _, events in jobs]
    assert [type(end) for end in ends] == [Finished, Finished, Failed, Finished]
    assert ends[2].refusal.status == 500
    after, events = job(engine)
    engine.submit([after])
    assert isinstance(last(events), Finished) and engine.running == 0


def test_layer_means_of_several_encoders_are_kept():
    """The second question about a picture is answered without the tower, and the first again as before."""
    model, processor = stirred(tower=ENSEMBLE)
    runs = []
    model.model.vision_tower.register_forward_hook(lambda *_: runs.append(1))
    running = Engine(model, processor, LayerStore(2**20), Limits(active=4, waiting=6))
    running.start()
    try:
        texts = []
        for question in ("What?", "Why is it so?", "What?"):
            asked, events = job(running, question, [noise(1)], tokens=12)
            running.submit([asked])
            event, text = None, ""
            while not isinstance(event, (Finished, Failed)):
                event = events.get(timeout=20)
                text += getattr(event, "text", "")
            assert isinstance(event, Finished)
            texts.append(text)
    finally:
        running.stop()
    assert len(runs) == 1 and len(running.store) == 1
    assert texts[0] == texts[2] != texts[1]


def test_other_work_with_the_model(engine):
    assert engine.call(lambda: 2 + 2).result(5) == 4
    with pytest.raises(ZeroDivisionError):
        engine.call(lambda: 1 / 0).result(5)
    assert engine.alive


def test_what_waits_can_be_cancelled_and_is_limited(engine):
    gate = threading.Event()
    engine.call(gate.wait)
    many = [job(engine) for _ in range(6)]
    engine.submit([each for each, _ in many])
    with pytest.raises(Refusal) as refused:
        engine.submit([job(engine)[0]])
    assert refused.value.status == 429
    many[0][0].cancel()
    gate.set()
    assert all(isinstance(last(events), Finished) for _, events in many[1:])
    assert many[0][1].empty()


def test_a_listener_that_is_gone_frees_its_place(engine):
    lost, _ = job(engine, tokens=1000)
    lost.emit = lambda event: 1 / 0
    other, events = job(engine)
    engine.submit([lost, other])
    assert isinstance(last(events), Finished)
    engine.call(lambda: None).result(5)
    assert engine.running == 0


def test_stopping_tells_everybody(small):
    engine = Engine(*small, LayerStore(0), Limits(active=1))
    engine._ends = frozenset()
    engine.start()
    jobs = [job(engine, tokens=100_000) for _ in range(2)]
    engine.submit([each for each, _ in jobs])
    jobs[0][1].get(timeout=20)
    engine.stop()
    assert [last(events).refusal.status for _, events in jobs] == [503, 503]
    with pytest.raises(Refusal):
        engine.submit([jobs[0][0]])

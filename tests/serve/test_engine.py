"""The thread that owns the model: failures stay where they belong."""

from __future__ import annotations

import io
import queue
import threading
import time

import pytest

from igva.serve.engine import Engine, Failed, Finished, Job
from igva.serve.failure import Refusal
from igva.serve.layer_store import LayerStore
from igva.serve.limits import Limits
from igva.serve.pictures import Picture
from igva.serve.prompt import PromptMaker
from igva.serve.running import Arrival
from igva.serve.sampling import Sampling
from igva.testing import ENSEMBLE

from .conftest import noise, stirred


@pytest.fixture
def engine(small):
    running = Engine(*small, LayerStore(2**20), Limits(active=4, waiting=6))
    running.start()
    yield running
    running.stop()


def job(engine, question="What?", pictures=(), tokens=4, **wishes):
    """A job, and the queue of its events."""
    from igva.answering import user_turn
    from igva.data.images import open_image

    maker = PromptMaker(engine.processor, engine.store, lambda p: open_image(io.BytesIO(p.data)))
    prompt = maker.make([user_turn(question, [None] * len(pictures))], [Picture.of(data) for data in pictures])
    events: queue.Queue = queue.Queue()
    return Job(prompt, Sampling(max_new_tokens=tokens, **wishes), events.put), events


def last(events):
    while not isinstance(event := events.get(timeout=20), (Finished, Failed)):
        pass
    return event


@pytest.fixture
def gate(engine):
    """Until it is set, the engine does nothing else."""
    opened, held = threading.Event(), threading.Event()
    engine.call(lambda: (held.set(), opened.wait()))
    held.wait(20)
    yield opened
    opened.set()


def test_nobody_fails_for_anothers_sake(engine, gate):
    """One of four that join together cannot be run."""
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


def test_other_work_that_nobody_waits_for_is_left_alone(engine, gate):
    done = []
    work = engine.call(lambda: done.append(1))
    assert work.cancel()
    gate.set()
    assert engine.call(lambda: 2).result(5) == 2
    assert engine.alive and not done


def test_who_leaves_during_a_long_prompt_is_not_waited_for(engine, gate, monkeypatch):
    monkeypatch.setattr("igva.serve.engine.CHUNK_TOKENS", 4)
    chunks = []
    advance = Arrival.advance

    def watched(arrival, most):
        chunks.append(1)
        if len(chunks) == 3:
            long.cancel()
        return advance(arrival, most)

    monkeypatch.setattr(Arrival, "advance", watched)
    long, events = job(engine, "What is it? " * 30)
    assert len(long.prompt.ids) > 100
    engine.submit([long])
    gate.set()
    until = time.monotonic() + 20
    while (len(chunks) < 3 or engine._arriving) and time.monotonic() < until:
        engine.call(lambda: None).result(20)
    engine.call(lambda: None).result(20)
    assert len(chunks) == 3 and events.empty() and engine.counts.prompt_tokens == 0


@pytest.mark.parametrize("temperature", [1e-320, 1e-45, 1e-40, 1e-10, 1e-4])
def test_a_temperature_near_zero_takes_the_likeliest_and_harms_nobody(engine, gate, temperature):
    wishes = [{}, {"temperature": temperature, "seed": 1}, {}]
    asked = [job(engine, "What is it?", tokens=8, **wish) for wish in wishes]
    engine.submit([each for each, _ in asked])
    gate.set()
    assert all(isinstance(last(events), Finished) for _, events in asked)
    greedy, cold, other = (each.tokens for each, _ in asked)
    assert greedy == cold == other


def test_logits_that_are_no_numbers_end_one_answer(engine, gate):
    asked = [job(engine, question, tokens=6) for question in ("What?", "Why?", "Who?")]
    step = engine._batch.step

    def broken(tokens):
        logits = step(tokens)
        if asked[1][0] in engine._batch.who:
            logits[engine._batch.who.index(asked[1][0])] = float("nan")
        return logits

    engine._batch.step = broken
    engine.submit([each for each, _ in asked])
    gate.set()
    ends = [last(events) for _, events in asked]
    assert [type(end) for end in ends] == [Finished, Failed, Finished]


def test_what_waits_can_be_cancelled_and_is_limited(engine, gate):
    many = [job(engine) for _ in range(6)]
    engine.submit([each for each, _ in many])
    with pytest.raises(Refusal) as refused:
        engine.submit([job(engine)[0]])
    assert refused.value.status == 429
    with pytest.raises(Refusal):
        engine.call(lambda: None)  # other work has a place in the same queue
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

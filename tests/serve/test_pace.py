"""Pieces of a prompt are as long as the others can bear."""

from igva.serve import pace
from igva.serve.pace import Pace


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

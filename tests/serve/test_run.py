"""What the server's process is set to before it listens."""

import sys
import threading
import time
from types import SimpleNamespace

import pytest

from igva.serve import run


@pytest.fixture
def running(monkeypatch):
    """The server is run, and ends at once."""
    before = sys.getswitchinterval()
    monkeypatch.setattr(run, "server", lambda app, limits: SimpleNamespace(run=lambda sockets: None))
    listener = run.bind("127.0.0.1", 0)
    run.run(None, listener)
    yield
    listener.close()
    sys.setswitchinterval(before)


def test_who_gives_the_interpreter_away_has_it_back_at_once(running):
    """An operation of torch gives it away, and a token is hundreds of them; by Python's 5 ms this took 1.5 s."""
    over = threading.Event()

    def work():
        while not over.is_set():
            sum(range(100))

    busy = threading.Thread(target=work)
    busy.start()
    start = time.perf_counter()
    for _ in range(300):
        time.sleep(1e-4)
    took = time.perf_counter() - start
    over.set()
    busy.join()
    assert took < 0.7

"""What the server's process is set to before it listens."""

import gc
import socket
import sys
import threading
import time
from types import SimpleNamespace

import pytest

from igva.serve import run

from .conftest import serving


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
    gc.unfreeze()


def test_what_is_loaded_is_not_searched_for_garbage(running):
    """Half a million objects of torch and transformers: a third of a second in which nobody is answered."""
    assert gc.get_freeze_count() > 100_000


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


@pytest.mark.skipif(socket.SOMAXCONN < 300, reason="the system lets fewer wait")
def test_hundreds_at_once_are_all_let_in():
    """Also while the server is busy: where there is no room to wait in, a client tries again only a second later."""

    async def busy(scope, receive, send):
        if scope["type"] == "http":
            time.sleep(2)

    with serving(busy) as url:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        first = socket.create_connection(address)
        first.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        time.sleep(0.2)
        start = time.perf_counter()
        clients = [socket.create_connection(address, 10) for _ in range(300)]
        assert time.perf_counter() - start < 0.9
        for client in [first, *clients]:
            client.close()

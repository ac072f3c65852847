"""Bodies share a bounded room, and who sends little is not refused for who sends much and late (S14)."""

import asyncio
import json
import select
import socket
import threading
import time
from contextlib import suppress
from dataclasses import replace

import httpx
import pytest

from igva.serve import bodies
from igva.serve.app import Settings, create_app
from igva.serve.bodies import LARGE, SMALL, Room
from igva.serve.completions import Completions, Conversation
from igva.serve.failure import Refusal
from igva.serve.limits import Limits

from .conftest import LIMITS, ask, chat, data_url, noise, serving

KB = 2**10


def parts(*sizes, end=True):
    """An ASGI ``receive`` that hands out so many bytes each time, and then waits."""
    left = [{"type": "http.request", "body": bytes(size), "more_body": True} for size in sizes]
    if end:
        left[-1]["more_body"] = False

    async def receive():
        if not left:
            await asyncio.sleep(60)
        return left.pop(0)

    return receive


async def take(body):
    try:
        while (await body.receive())["more_body"]:
            await asyncio.sleep(0)
    except Refusal as refusal:
        return refusal.status
    return 200


def test_who_held_most_for_longest_makes_way():
    async def story():
        room = Room(Limits(bodies_bytes=300 * KB))
        waiting = {}
        for name, size in {"little": 90 * KB, "much": 150 * KB}.items():
            waiting[name] = asyncio.create_task(take(room.enter(parts(size, end=False), None)))
        await asyncio.sleep(0.2)
        assert room.held == 240 * KB
        whole = room.enter(parts(100 * KB, 100 * KB), None)  # larger than either, but new
        assert await take(whole) == 200 and room.held == 290 * KB
        assert await waiting["much"] == 429 and not waiting["little"].done()
        assert await take(room.enter(parts(SMALL), None)) == 200  # who sends little always may
        assert not waiting["little"].done()
        late = room.enter(parts(70 * KB, end=False), None)
        assert await asyncio.wait_for(take(late), 5) == 429  # 200 + 64 + 70 KB: not even "little" makes room enough
        assert await waiting["little"] == 429
        whole.let_go()
        assert await take(room.enter(parts(100 * KB), None)) == 200

    asyncio.run(story())


def test_who_has_sent_little_never_makes_way():
    """Neither a slow small body nor a request without one, though complete ones fill the room."""

    async def story():
        room = Room(Limits(bodies_bytes=300 * KB))
        idle = [asyncio.create_task(take(room.enter(parts(size, end=False), None))) for size in (1, 60 * KB)]
        assert await take(room.enter(parts(290 * KB), None)) == 200
        await asyncio.sleep(0.01)
        assert await take(room.enter(parts(200 * KB), None)) == 429
        assert not any(task.done() for task in idle)
        for task in idle:
            task.cancel()

    asyncio.run(story())


def test_one_whose_time_is_up_may_be_told_to_make_way_at_once():
    async def story():
        room = Room(Limits(bodies_bytes=300 * KB, body_seconds=0.05))
        slow = room.enter(parts(200 * KB, end=False), None)
        waiting = asyncio.create_task(take(slow))
        await asyncio.sleep(0.02)
        loop = asyncio.get_running_loop()
        loop.call_at(slow._until, lambda: slow.refuse(Refusal(429, "make way")))  # in the round of its own time-out
        assert await waiting in (408, 429)

    asyncio.run(story())


def test_what_is_complete_is_not_refused_for_its_time():
    async def story():
        room = Room(Limits(body_seconds=0.05))
        body = room.enter(parts(10), None)
        assert await take(body) == 200
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(body.receive(), 0.3)  # it is waited for whether the client leaves
        assert await take(room.enter(parts(10, end=False), None)) == 408

    asyncio.run(story())


def test_large_ones_take_turns_and_small_ones_do_not():
    async def story():
        room = Room(Limits())
        entered = [room.enter(parts(size), None) for size in (2**21, 2**21, 100)]
        for body in entered:
            assert await take(body) == 200
        first, second, small = entered
        assert first.is_large and not small.is_large
        await first.turn()
        waiting = asyncio.create_task(second.turn())
        given_up = asyncio.create_task(second.turn())
        await asyncio.sleep(0.02)
        assert not waiting.done()
        given_up.cancel()
        first.let_go()
        first.let_go()  # once is enough
        await asyncio.wait_for(waiting, 1)
        assert room.turns.locked()
        second.let_go()
        assert not room.turns.locked()

    asyncio.run(story())


def test_a_neighbour_of_many_that_send_much_and_never_end(small):
    limits = replace(LIMITS, bodies_bytes=2**20)
    with serving(create_app(*small, Settings("small", limits=limits)), limits) as url:
        address = ("127.0.0.1", int(url.rpartition(":")[2]))
        expected = ask(url, chat("What?", data_url(noise()))).json()["choices"][0]["message"]
        slow = []
        for _ in range(8):
            client = socket.create_connection(address, 10)
            client.sendall(
                b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                b"Content-Length: 4000000\r\n\r\n" + b" " * 300_000
            )
            slow.append(client)
        refused = [client for client in slow if select.select([client], [], [], 1.0)[0]]
        assert len(refused) == 5  # 3 of them fit
        assert all(client.recv(1000).startswith(b"HTTP/1.1 429") for client in refused)
        large = chat("What?", data_url(noise(1, 400)))  # 640 KB
        assert len(json.dumps(large)) > 500_000
        for body in (chat("What?", data_url(noise())), large):
            assert ask(url, body).status_code == 200
        assert ask(url, chat("What?", data_url(noise()))).json()["choices"][0]["message"] == expected
        assert httpx.get(f"{url}/health", timeout=5).status_code == 200
        for client in slow:
            client.close()


def test_a_large_one_has_its_turn_until_the_model_has_read_it(small, monkeypatch):
    """So that of many whose senders leave few are made ready; small ones go past."""
    monkeypatch.setattr(bodies, "TURN_SECONDS", 60)
    told, opened = [], threading.Event()
    begin, start = Completions.begin, Conversation.start

    def name(request):
        return request.chat()[0]["content"][-1]["text"]

    async def begun(self, request):
        told.append(f"begin {name(request)}")
        return await begin(self, request)

    async def started(self):
        while name(self.request) != "small" and not opened.is_set():
            await asyncio.sleep(0.01)
        told.append(f"read {name(self.request)}")
        await start(self)

    monkeypatch.setattr(Completions, "begin", begun)
    monkeypatch.setattr(Conversation, "start", started)
    large = {each: chat(each, data_url(noise(0, 640))) for each in ("one", "two")}
    assert all(len(json.dumps(body)) > LARGE for body in large.values())
    with serving(create_app(*small, Settings("small", limits=LIMITS))) as url:
        clients = [threading.Thread(target=ask, args=(url, body)) for body in large.values()]
        for client in clients:
            client.start()
            while not told:
                time.sleep(0.01)
        time.sleep(0.3)  # both have arrived
        assert ask(url, chat("small", data_url(noise()))).status_code == 200
        assert told == ["begin one", "begin small", "read small"]
        opened.set()
        for client in clients:
            client.join(60)
    assert told[3:] == ["read one", "begin two", "read two"]


def test_a_turn_ends_soon_where_the_model_is_busy(monkeypatch):
    monkeypatch.setattr(bodies, "TURN_SECONDS", 0.05)

    async def story():
        room = Room(Limits())
        body = room.enter(parts(2**21), None)
        assert await take(body) == 200
        await body.turn()
        body.forget()
        assert room.held == 0 and room.turns.locked()
        await asyncio.wait_for(room.turns.acquire(), 5)
        body.let_go()  # once is enough
        assert room.turns.locked()

    asyncio.run(story())


@pytest.mark.parametrize("fails", ["leaves with the turn", "leaves while it waits", "error"])
def test_the_turn_is_free_again(fails, small, monkeypatch):
    """Whoever had it leaves, or fails before the model has read anything."""
    monkeypatch.setattr(bodies, "TURN_SECONDS", 60)
    reading = threading.Event()

    async def stuck(self):
        reading.set()
        if fails == "error":
            raise Refusal(500, "no")
        await asyncio.sleep(60)

    app = create_app(*small, Settings("small", limits=LIMITS))
    body = chat("What?", data_url(noise(0, 640)))
    with serving(app) as url:
        with monkeypatch.context() as patched:
            patched.setattr(Conversation, "start", stuck)
            count = 2 if fails == "leaves while it waits" else 1
            clients = [threading.Thread(target=_ask_for_a_second, args=(url, body)) for _ in range(count)]
            for client in clients:
                client.start()
            assert reading.wait(30)
            for client in clients:
                client.join()
        assert ask(url, body).status_code == 200
        assert not app.room.turns.locked()


def _ask_for_a_second(url, body):
    with suppress(httpx.TimeoutException):
        httpx.post(f"{url}/v1/chat/completions", json=body, timeout=1)

"""What does a neighbour feel of a client that misbehaves in every way there is?

    python benchmarks/serve_attacked.py [--model tiny] [--minutes 10] [--quiet-minutes 1] [--kinds ...] [--json]

Starts a server of its own. A quiet client asks a few questions over and over, about pictures and without, and /health
in between: first alone, then while another client, a process of its own, misbehaves (`KINDS`, one after the other in
random order, some held open meanwhile), then alone again. Every answer must be the one that was given before the
attack. Exit code 1 if a promise is broken: an answer differs or is missing, the server fails on anything (5xx), the
neighbour's slowest answer is more than 3 times its slowest alone, or the server's memory (resident set, Linux) is not
back within 5 %.
"""

from __future__ import annotations

import argparse
import base64
import io
import json
import multiprocessing
import queue
import random
import socket
import statistics
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import httpx
import numpy as np
from PIL import Image

from serve import resident_mb

SLOWER = 3.0  # at most, of the slowest answer
MEMORY = 1.05  # at most, once it is over
ROUTE = "/v1/chat/completions"
SETTLE_SECONDS = 90.0


def data_url(image: Image.Image, form: str = "PNG", **options: Any) -> str:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return encoded(buffer.getvalue(), form)


def encoded(data: bytes, form: str = "PNG") -> str:
    return f"data:image/{form.lower()};base64,{base64.b64encode(data).decode()}"


def dots(seed: int, side: int = 64) -> str:
    return data_url(Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8)))


def jpeg_of_scans(scans: int) -> str:
    """A progressive JPEG whose last scan comes again and again."""
    buffer = io.BytesIO()
    Image.new("L", (4000, 4000), 90).save(buffer, "JPEG", progressive=True)
    data = buffer.getvalue()[:-2]
    return encoded(data + data[data.rindex(b"\xff\xda") :] * scans + b"\xff\xd9", "JPEG")


def chat(text: str, *pictures: str, **fields: Any) -> dict[str, Any]:
    content: list[dict[str, Any]] = [{"type": "image_url", "image_url": {"url": each}} for each in pictures]
    messages = [{"role": "user", "content": [*content, {"type": "text", "text": text}]}]
    return {"model": "it", "messages": messages, "max_tokens": 8, "temperature": 0, **fields}


@dataclass
class Felt:
    """What the quiet client met.

    Attributes:
        seconds: of each answer; ``began``: when it was asked for; ``health``: seconds of each answer of /health.
        wrong: what was answered in place of what.
    """

    seconds: list[float] = field(default_factory=list)
    began: list[float] = field(default_factory=list)
    health: list[float] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


class Neighbour:
    """The quiet client; a new connection for every question, as most clients do."""

    def __init__(self, url: str):
        self.url = url
        self.bodies = [chat(f"What is it, number {n}?", *([dots(n)] if n % 3 else []), max_tokens=6) for n in range(6)]
        self.answers = [self.ask(body, Felt()) for body in self.bodies]

    def ask(self, body: dict[str, Any], felt: Felt) -> str:
        felt.began.append(time.monotonic())
        try:
            reply = httpx.post(f"{self.url}{ROUTE}", json=body, timeout=600)
            said = str(reply.json()["choices"][0]["message"]["content"]) if reply.status_code == 200 else reply.text
        except httpx.HTTPError as error:
            said = repr(error)
        felt.seconds.append(time.monotonic() - felt.began[-1])
        return said

    def ask_until(self, over: Callable[[], bool]) -> Felt:
        felt = Felt()
        while not over() or len(felt.seconds) < len(self.bodies):
            number = len(felt.seconds) % len(self.bodies)
            said = self.ask(self.bodies[number], felt)
            if said != self.answers[number]:
                felt.wrong.append(f"{said[:200]!r} in place of {self.answers[number]!r}")
            start = time.perf_counter()
            try:
                if httpx.get(f"{self.url}/health", timeout=600).status_code != 200:
                    felt.wrong.append("/health")
            except httpx.HTTPError as error:
                felt.wrong.append(f"/health: {error!r}")
            felt.health.append(time.perf_counter() - start)
        return felt


class Misbehaviour:
    """One client's. Each kind is a method that tells what it got."""

    def __init__(self, url: str):
        self.url, self.port = url, int(url.rpartition(":")[2])
        self.thin = [data_url(Image.new("L", size)) for size in ((20_000, 4), (1, 20_000), (60_000, 1))]
        self.scans = jpeg_of_scans(1000)
        self.large = dots(7, 1500)
        self.silent: list[socket.socket] = []

    def post(self, content: bytes | dict[str, Any], route: str = ROUTE, **headers: str) -> int:
        body = json.dumps(content).encode() if isinstance(content, dict) else content
        headers = {"content-type": "application/json", **headers}
        return httpx.post(f"{self.url}{route}", content=body, headers=headers, timeout=600).status_code

    def send(self, body: bytes, route: str = ROUTE, length: int | None = None) -> socket.socket:
        client = socket.create_connection(("127.0.0.1", self.port), 60)
        head = f"POST {route} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
        client.sendall(f"{head}Content-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body)
        return client

    def leave(self, content: dict[str, Any], times: int = 1, route: str = ROUTE) -> str:
        """Ask, and hang up a moment later."""
        clients = [self.send(json.dumps(content).encode(), route) for _ in range(times)]
        time.sleep(0.5)
        for client in clients:
            client.close()
        return "left"

    def temperature_near_zero(self) -> int:
        return self.post(chat("Tell me a story.", temperature=random.choice((1e-30, 1e-38, 1e-45, 5e-324))))

    def thin_picture(self) -> int:
        return self.post(chat("What?", random.choice(self.thin), max_tokens=1))

    def a_million_zeros(self) -> int:
        return self.post(b'{"model":"it","messages":[' + b"0," * 999_999 + b"0]}")

    def brackets(self) -> int:
        return self.post(b'{"model":"it","messages":' + b"[" * 90_000 + b"]" * 90_000 + b"}")

    def empty_messages(self) -> int:
        return self.post({"model": "it", "messages": [{"role": "user", "content": ""}] * 20_000})

    def typed_placeholders(self) -> int:
        return self.post(chat("<image>" * 37_000))

    def megabytes_of_words(self) -> int:
        return self.post(chat("the cat sat " * 300_000))

    def long_prompt_whose_sender_leaves(self) -> str:
        return self.leave(chat("the cat sat on a mat " * 1200, max_tokens=1))

    def stream_whose_reader_leaves(self) -> str:
        return self.leave(chat("Tell me a story.", max_tokens=500, min_tokens=500, n=4, stream=True))

    def large_pictures_whose_sender_leaves(self) -> str:
        return self.leave(chat("What?", self.large), times=8)

    def attention_whose_senders_leave(self) -> str:
        return self.leave({"image": dots(8)}, times=20, route="/igva/attention")

    def body_that_stops(self) -> str:
        self.hold([self.send(b'{"model":"it"' + b" " * 2**20, length=2**24) for _ in range(4)])
        return "held"

    def silent_connections(self) -> str:
        self.hold([socket.create_connection(("127.0.0.1", self.port), 60) for _ in range(300)])
        for client in self.silent[::2]:
            with suppress(OSError):
                client.sendall(b"GET /health HTTP/1.1\r\nX: ")
        return "held"

    def hold(self, clients: list[socket.socket]) -> None:
        """Keep these open, in place of those that were held before."""
        for client in self.silent:
            client.close()
        self.silent = clients

    def jpeg_of_a_thousand_scans(self) -> int:
        return self.post(chat("What?", self.scans, max_tokens=1))

    def no_picture(self) -> int:
        return self.post(chat("What?", encoded(b"no picture at all"), max_tokens=1))

    def half_an_emoji(self) -> int:
        return self.post(b'{"model":"it","messages":[{"role":"user","content":"\\ud83e"}],"max_tokens":1}')

    def post_of_another_site(self) -> int:
        return self.post(chat("What?"), origin="https://elsewhere.example", **{"content-type": "text/plain"})

    def wishes_beyond_the_limits(self) -> int:
        return self.post(chat("What?") | random.choice(({"n": 99}, {"temperature": 3}, {"max_tokens": 10**9})))


KINDS = [
    name
    for name, member in vars(Misbehaviour).items()
    if callable(member) and name not in ("__init__", "post", "send", "leave", "hold")
]


def misbehave(url: str, kinds: list[str], over: Any, met: Any) -> None:
    """Every one of these kinds in turn, in an order that changes, until it is over; what was met goes to a queue."""
    one = Misbehaviour(url)
    order: list[str] = []
    while not over.is_set():
        order = order or random.sample(kinds, len(kinds))
        kind, start = order.pop(), time.monotonic()
        try:
            what = str(getattr(one, kind)())
        except (httpx.HTTPError, OSError) as error:  # hung up on, as it deserves
            what = type(error).__name__
        met.put(Met(kind, what, start, time.monotonic()))
    one.hold([])


class Met(NamedTuple):
    """What one misbehaviour got, and when: ``time.monotonic``, which all processes share."""

    kind: str
    what: str
    began: float
    ended: float


class Attack:
    """A client that misbehaves, as a process: what it does must not hold up the neighbour's."""

    def __init__(self, url: str, kinds: list[str]):
        context = multiprocessing.get_context("spawn")
        self._over, self._queue = context.Event(), context.Queue()
        self._process = context.Process(target=misbehave, args=(url, kinds, self._over, self._queue), daemon=True)
        self._process.start()
        self._met: list[Met] = []

    def met(self) -> list[Met]:
        """So far."""
        with suppress(queue.Empty):
            while True:
                self._met.append(self._queue.get(timeout=0.01))
        return self._met

    def end(self) -> None:
        self._over.set()
        while self._process.is_alive():
            self.met()


def settled_mb(pid: int, most: float) -> float:
    """The server's memory once it is below so much, or time is up."""
    until = time.monotonic() + SETTLE_SECONDS
    while (now := resident_mb(pid)) > most and time.monotonic() < until:
        time.sleep(1)
    return now


def measure(model: str, minutes: float, quiet_minutes: float, kinds: list[str]) -> dict[str, Any]:
    command = [sys.executable, "-m", "igva", "serve", "--model", model, "--name", "it", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[3]
            neighbour = Neighbour(url)
            end = time.monotonic() + 60 * quiet_minutes
            alone = neighbour.ask_until(lambda: time.monotonic() > end)
            before = resident_mb(server.pid)
            attack = Attack(url, kinds)
            start = time.monotonic()
            beside = neighbour.ask_until(
                lambda: time.monotonic() > start + 60 * minutes and {each.kind for each in attack.met()} == set(kinds)
            )
            during = resident_mb(server.pid)
            attack.end()
            met = attack.met()
            after = neighbour.ask_until(lambda: True)
            memory = settled_mb(server.pid, before * MEMORY)
        finally:
            server.terminate()
            server.wait(60)
    return {
        "alone": felt(alone),
        "beside": felt(beside),
        "after": felt(after),
        "memory_mb": {"alone": round(before), "beside": round(during), "after": round(memory)},
        "misbehaviour": dict(sorted(Counter(f"{each.kind}: {each.what}" for each in met).items())),
        "slowest_beside": slowest(beside, met),
        "broken": broken(alone, beside, after, before, memory, met),
    }


def felt(each: Felt) -> dict[str, Any]:
    return {
        "answers": len(each.seconds),
        "wrong": len(each.wrong),
        "median_s": round(statistics.median(each.seconds), 2),
        "slowest_s": round(max(each.seconds), 2),
        "slowest_health_s": round(max(each.health), 2),
    }


def slowest(beside: Felt, met: list[Met], count: int = 5) -> list[dict[str, Any]]:
    """The neighbour's slowest answers, and what went on during each or had ended at most a second before."""
    rows = sorted(zip(beside.seconds, beside.began, strict=True), reverse=True)[:count]
    return [
        {
            "seconds": round(seconds, 2),
            "beside": [each.kind for each in met if each.began < began + seconds and each.ended > began - 1],
        }
        for seconds, began in rows
    ]


def broken(alone: Felt, beside: Felt, after: Felt, before_mb: float, after_mb: float, met: list[Met]) -> list[str]:
    """Promises that were not kept."""
    found = [f"wrong answer: {each}" for felt in (alone, beside, after) for each in felt.wrong[:3]]
    found += [f"{each.kind}: {each.what}" for each in met if each.what.startswith("5")]
    if (ratio := max(beside.seconds) / max(alone.seconds)) > SLOWER:
        found.append(f"the slowest answer took {ratio:.1f} times as long as alone")
    if after_mb > before_mb * MEMORY:
        found.append(f"{after_mb:.0f} MB of memory in place of {before_mb:.0f}")
    return found


def report(result: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [f"{'neighbour':10} {'answers':>8} {'wrong':>6} {'median':>9} {'slowest':>9} {'/health':>9} {'memory':>9}"]
    for phase in ("alone", "beside", "after"):
        row = result[phase]
        lines.append(
            f"{phase:10} {row['answers']:>8} {row['wrong']:>6} {row['median_s']:>7.2f} s {row['slowest_s']:>7.2f} s "
            f"{row['slowest_health_s']:>7.2f} s {result['memory_mb'][phase]:>6} MB"
        )
    lines += [f"  {count:>5} × {kind}" for kind, count in result["misbehaviour"].items()]
    lines += [f"  {row['seconds']:>5} s beside {', '.join(row['beside'])}" for row in result["slowest_beside"]]
    return "\n".join([*lines, *(f"BROKEN: {each}" for each in result["broken"])])


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--minutes", type=float, default=10.0, help="under attack; every kind is tried once at least")
    parser.add_argument("--quiet-minutes", type=float, default=1.0, help="alone, before")
    parser.add_argument("--kinds", choices=KINDS, nargs="+", default=KINDS, help="of misbehaviour; default: all")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    result = measure(args.model, args.minutes, args.quiet_minutes, args.kinds)
    print(json.dumps(result) if args.json else report(result))
    return 1 if result["broken"] else 0


if __name__ == "__main__":
    sys.exit(main())

"""What does `igva serve` bear? Closed-loop clients, each asking again as soon as it is answered.

    python benchmarks/serve.py [--model tiny] [--clients 1 4 16] [--seconds 300] [--round 15] [--json]

Starts a server of its own. Every request asks for exactly 32 new tokens about one picture: every other one is one of
eight that come again, the rest are new. The numbers of clients take turns in rounds of ``--round`` seconds until each
has had ``--seconds``, so that load from elsewhere falls on all of them alike. Told are latencies and times to the first
token (percentiles), tokens per second, errors, and the server's memory (resident set, Linux) at the end against the
end of the first fifth.

Then, with one client: the time to the first token for new pictures and for repeated ones, in pairs, beside the time
that the vision tower takes for a picture by itself.
"""

from __future__ import annotations

import argparse
import base64
import io
import itertools
import json
import statistics
import subprocess
import sys
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from PIL import Image

NEW_TOKENS = 32
REPEATED = 8
WARM_UP_SECONDS = 10
QUESTIONS = ("What is in the picture?", "What color is the background?", "How many things are there?", "Where is it?")


@dataclass
class Load:
    """What one number of clients met."""

    latency: list[float] = field(default_factory=list)
    first: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    tokens: int = 0
    seconds: float = 0.0

    def summary(self) -> dict[str, Any]:
        return {
            "requests": len(self.latency),
            "errors": len(self.errors),
            "tokens_per_second": round(self.tokens / self.seconds, 1),
            "latency_ms": percentiles(self.latency),
            "first_token_ms": percentiles(self.first),
        }


def percentiles(seconds: list[float]) -> dict[str, float]:
    ordered = sorted(seconds)
    return {
        f"p{share}": round(1000 * ordered[min(len(ordered) - 1, len(ordered) * share // 100)], 1)
        for share in (50, 90, 99)
        if ordered
    }


class Pictures:
    """Pictures as data URLs: eight that come again, and new ones without end."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._seeds = itertools.count(REPEATED)
        self.repeated = [self.make(seed) for seed in range(REPEATED)]

    def make(self, seed: int) -> str:
        draw = np.random.default_rng(seed)
        small = Image.fromarray(draw.integers(0, 256, (12, 16, 3), dtype=np.uint8))
        buffer = io.BytesIO()
        small.resize((320, 240), Image.Resampling.BICUBIC).save(buffer, "JPEG")
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()

    def new(self) -> str:
        with self._lock:
            seed = next(self._seeds)
        return self.make(seed)


def ask(client: httpx.Client, url: str, model: str, picture: str, question: str, load: Load) -> None:
    """One streamed request, into the books."""
    body = {
        "model": model,
        "messages": [
            {
                "role": "user",
                "content": [
                    {"type": "image_url", "image_url": {"url": picture}},
                    {"type": "text", "text": question},
                ],
            }
        ],
        "stream": True,
        "temperature": 0,
        "max_tokens": NEW_TOKENS,
        "min_tokens": NEW_TOKENS,
    }
    start, first, done = time.perf_counter(), None, False
    try:
        with client.stream("POST", f"{url}/v1/chat/completions", json=body) as reply:
            if reply.status_code != 200:
                load.errors.append(reply.read().decode())
                return
            for line in reply.iter_lines():
                if first is None and '"content": "' in line and '"role"' not in line:
                    first = time.perf_counter()
                done = done or line == "data: [DONE]"
        if not done:
            load.errors.append("the stream broke off")
            return
    except httpx.HTTPError as error:
        load.errors.append(repr(error))
        return
    load.latency.append(time.perf_counter() - start)
    load.first.append((first or time.perf_counter()) - start)
    load.tokens += NEW_TOKENS


def press(url: str, model: str, clients: int, seconds: float, pictures: Pictures, load: Load) -> None:
    """So many clients for so long; answers under way when time is up are waited for, and counted with their time."""
    start = time.perf_counter()

    def loop(number: int) -> None:
        with httpx.Client(timeout=120) as client:
            for turn in itertools.count(number):
                if time.perf_counter() - start > seconds:
                    return
                picture = pictures.new() if turn % 2 else pictures.repeated[turn // 2 % REPEATED]
                ask(client, url, model, picture, QUESTIONS[turn % len(QUESTIONS)], load)

    threads = [threading.Thread(target=loop, args=(number,)) for number in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    load.seconds += time.perf_counter() - start


def first_token(url: str, model: str, pictures: Pictures, pairs: int) -> dict[str, Any]:
    """Time to the first token, of new pictures and of the same ones again; the question is another one."""
    new, again = Load(), Load()
    with httpx.Client(timeout=120) as client:
        for _ in range(pairs):
            picture = pictures.new()
            ask(client, url, model, picture, QUESTIONS[0], new)
            ask(client, url, model, picture, QUESTIONS[1], again)
    saved = [a - b for a, b in zip(new.first, again.first, strict=True)]
    return {
        "new_ms": percentiles(new.first)["p50"],
        "repeated_ms": percentiles(again.first)["p50"],
        "saved_ms": round(1000 * statistics.median(saved), 1),
        "saved_share_of_all": round(statistics.median(saved) / statistics.median(new.first), 3),
        "errors": len(new.errors) + len(again.errors),
    }


def tower_ms(model: str, pictures: Pictures, rounds: int) -> float:
    """Median time of decoding one picture, preparing it, and the vision tower; in this process."""
    import torch

    from igva.answering import load
    from igva.data.images import open_image

    loaded, processor = load(model)
    times = []
    with torch.inference_mode():
        for _ in range(rounds):
            data = base64.b64decode(pictures.new().split(",")[1])
            start = time.perf_counter()
            loaded.model.encode_image_layers(processor.prepare_images([open_image(io.BytesIO(data))]))
            times.append(time.perf_counter() - start)
    return round(1000 * statistics.median(times[3:]), 1)


def resident_mb(pid: int) -> float:
    text = Path(f"/proc/{pid}/status").read_text()
    return int(text.split("VmRSS:")[1].split()[0]) / 1024


def counters(url: str) -> dict[str, float]:
    lines = [line.split() for line in httpx.get(f"{url}/metrics").text.splitlines() if line.startswith("igva_")]
    return {name: float(value) for name, value in lines if name.endswith("_total") and "{" not in name}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 4, 16])
    parser.add_argument("--seconds", type=float, default=300.0, help="for each number of clients")
    parser.add_argument("--round", type=float, default=15.0, help="seconds of one turn")
    parser.add_argument("--pairs", type=int, default=30, help="for the time to the first token")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()

    command = [sys.executable, "-m", "igva", "serve", "--model", args.model, "--name", "it", "--port", "0"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server:
        try:
            assert server.stdout is not None
            url = server.stdout.readline().split()[3]
            pictures = Pictures()
            press(url, "it", max(args.clients), WARM_UP_SECONDS, pictures, Load())
            loads = {clients: Load() for clients in args.clients}
            rounds = max(1, round(args.seconds / args.round))
            memory = []
            for turn in range(rounds):
                for clients in args.clients[turn % len(args.clients) :] + args.clients[: turn % len(args.clients)]:
                    press(url, "it", clients, args.round, pictures, loads[clients])
                memory.append(resident_mb(server.pid))
                print(f"round {turn + 1} of {rounds}: {memory[-1]:.0f} MB", file=sys.stderr)
            result: dict[str, Any] = {
                "clients": {clients: load.summary() for clients, load in loads.items()},
                "memory_mb": {"after_warm_up": round(memory[rounds // 5], 1), "end": round(memory[-1], 1)},
                "first_token": first_token(url, "it", pictures, args.pairs),
                "counters": counters(url),
            }
        finally:
            server.terminate()
            server.wait(30)
    result["decode_prepare_tower_ms"] = tower_ms(args.model, pictures, args.pairs)
    least, most = min(args.clients), max(args.clients)
    speed = {clients: load["tokens_per_second"] for clients, load in result["clients"].items()}
    result["throughput_ratio"] = round(speed[most] / speed[least], 2)
    for load in loads.values():
        for error in load.errors[:3]:
            print(error, file=sys.stderr)
    print(json.dumps(result) if args.json else report(result))


def report(result: dict[str, Any]) -> str:
    """The figures as text."""
    lines = [f"{'clients':>8} {'requests':>9} {'errors':>7} {'tokens/s':>9}  latency ms        first token ms"]
    for clients, load in result["clients"].items():
        late, first = (" / ".join(f"{v:.0f}" for v in load[key].values()) for key in ("latency_ms", "first_token_ms"))
        lines.append(
            f"{clients:>8} {load['requests']:>9} {load['errors']:>7} {load['tokens_per_second']:>9}  {late:<17} {first}"
        )
    memory, first = result["memory_mb"], result["first_token"]
    return "\n".join(
        [
            *lines,
            "(p50 / p90 / p99)",
            f"throughput of the most clients, of the fewest: {result['throughput_ratio']}",
            f"memory: {memory['after_warm_up']} MB after the first fifth, {memory['end']} MB at the end",
            f"first token, one client: new picture {first['new_ms']} ms, again {first['repeated_ms']} ms, saved "
            f"{first['saved_ms']} ms; decode + prepare + tower alone take {result['decode_prepare_tower_ms']} ms",
        ]
    )


if __name__ == "__main__":
    main()

"""The server is killed while it streams to several clients, and started again."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time

import httpx

from .conftest import ask, chat, data_url, noise


def test_killed_under_load_and_started_again(small, tmp_path):
    model, processor = small
    model.save_pretrained(tmp_path / "small")
    processor.save_pretrained(tmp_path / "small")
    where = tmp_path / "work"
    where.mkdir()
    environment = os.environ | {"IGVA_HOME": str(where / "home"), "TMPDIR": str(where), "HOME": str(where)}
    command = [sys.executable, "-m", "igva", "serve", "--model", str(tmp_path / "small"), "--max-new-tokens", "4000"]

    def start(port: int) -> tuple[subprocess.Popen[str], str]:
        process = subprocess.Popen(
            [*command, "--port", str(port)], stdout=subprocess.PIPE, text=True, cwd=where, env=environment
        )
        return process, process.stdout.readline().split()[3]

    server, url = start(0)
    outcomes: list[str] = []

    def stream(number: int) -> None:
        body = chat("What?", data_url(noise(number)), stream=True, max_tokens=4000, min_tokens=4000)
        try:
            ask(url, body)
            outcomes.append("answered")
        except (httpx.RemoteProtocolError, httpx.ReadError):
            outcomes.append("clean error")

    threads = [threading.Thread(target=stream, args=(number,)) for number in range(8)]
    try:
        for thread in threads:
            thread.start()
        while "igva_running 8.0" not in httpx.get(f"{url}/metrics").text:
            time.sleep(0.02)
        server.send_signal(signal.SIGKILL)
        for thread in threads:
            thread.join(5)
        assert outcomes == ["clean error"] * 8
        server.wait(5)
        server, again = start(int(url.rsplit(":", 1)[1]))  # on the same port, at once
        assert again == url and ask(url, chat()).status_code == 200
    finally:
        server.kill()
        server.wait(5)
    files = [path for path in where.rglob("*") if path.is_file() and "__pycache__" not in path.parts]
    assert not files, files  # it writes nothing, so nothing can be half-written

"""``igva serve``: what it refuses to start with, and a whole life from the command line."""

import signal
import socket
import subprocess
import sys

import httpx
import pytest

from igva.cli.main import entry


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--host", "0.0.0.0"], "is open to others: give --api-key"),
        (["--host", "::"], "is open to others"),
        (["--port", "70000"], "--port 70000"),
        (["--host", "host.invalid", "--api-key", "k"], "cannot listen on host.invalid"),
        (["--api-key", "schlüssel"], "use ASCII"),
        (["--api-key", ""], "--api-key is empty"),
        (["--allow-local", "no/folder"], "there is no such folder"),
        (["--max-active", "0"], "--max-active 0"),
        (["--layer-cache-mb", "-1"], "--layer-cache-mb -1"),
        (["--model", "nothing", "--port", "0"], "there is no model 'nothing'"),
    ],
)
def test_bad_input(words, told, one_line, monkeypatch):
    monkeypatch.delenv("IGVA_API_KEY", raising=False)
    assert entry(["serve", *words]) == 2
    assert told in one_line()


def test_a_port_that_is_taken(one_line):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        assert entry(["serve", "--port", str(taken.getsockname()[1])]) == 2
    assert "name another --port" in one_line()


def test_from_start_to_ctrl_c(model_folders, tmp_path):
    command = [sys.executable, "-m", "igva", "serve", "--model", model_folders["one"], "--port", "0", "--name", "mine"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=tmp_path) as process:
        try:
            url = process.stdout.readline().split()[3]
            assert httpx.get(f"{url}/health").status_code == 200
            body = {"model": "mine", "messages": [{"role": "user", "content": "Hi"}], "max_tokens": 2}
            assert httpx.post(f"{url}/v1/chat/completions", json=body, timeout=60).status_code == 200
            process.send_signal(signal.SIGINT)
            assert process.wait(20) in (0, 130)
            assert "Traceback" not in process.stderr.read()
        finally:
            process.kill()
    assert not list(tmp_path.iterdir())  # nothing was written

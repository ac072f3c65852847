"""vLLM's own OpenAI server, asked with plain chat messages: it answers as ``igva.answer`` does.

vLLM has an environment of its own (``make test-vllm``); without it these tests are skipped.
"""

from __future__ import annotations

import base64
import importlib.util
import io
import os
import socket
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)

import httpx
from PIL import Image

from igva.answering import answer, load, resolve_model
from igva.checkpoints.tiny import tiny_present

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

CHELSEA = Path(__file__).parents[2] / "examples" / "chelsea.png"
QUESTIONS = ("What is in the picture?", "What colour is it?", "Is <image> or <|im_end|> written there?")


@pytest.fixture(scope="module")
def ours():
    """Question → answer."""
    if not tiny_present():
        pytest.skip("the tiny model is not fetched: igva models fetch tiny")
    model, processor = load("tiny")
    picture = Image.open(CHELSEA).convert("RGB")
    return {question: answer(model, processor, picture, question).answer for question in QUESTIONS}


@pytest.fixture(scope="module")
def url(ours, tmp_path_factory):
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = tmp_path_factory.mktemp("server") / "log"
    options = "--dtype float32 --enforce-eager --max-model-len 1024 --host 127.0.0.1 --served-model-name tiny"
    environment = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_HOST_IP": "127.0.0.1", "VLLM_NO_USAGE_STATS": "1"}
    with log.open("w") as told:
        command = [sys.executable, "-m", "vllm.entrypoints.openai.api_server", "--model", resolve_model("tiny")]
        server = subprocess.Popen(
            [*command, "--port", str(port), *options.split()],
            stdout=told,
            stderr=subprocess.STDOUT,
            env={**os.environ, **environment, "VLLM_ENABLE_V1_MULTIPROCESSING": "1"},
        )
    try:
        address = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 300
        while not healthy(address):
            assert server.poll() is None and time.monotonic() < deadline, log.read_text()[-4000:]
            time.sleep(1)
        yield address
    finally:
        server.terminate()
        server.wait(60)


def healthy(address):
    try:
        return httpx.get(f"{address}/health", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


def asked(url, question):
    data = io.BytesIO()
    Image.open(CHELSEA).convert("RGB").save(data, "PNG")
    picture = "data:image/png;base64," + base64.b64encode(data.getvalue()).decode()
    content = [{"type": "image_url", "image_url": {"url": picture}}, {"type": "text", "text": question}]
    body = {"model": "tiny", "messages": [{"role": "user", "content": content}], "temperature": 0, "max_tokens": 64}
    return httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120)


def test_plain_messages_asked_at_once(url, ours):
    with ThreadPoolExecutor(3) as clients:
        replies = list(clients.map(lambda question: asked(url, question), QUESTIONS))
    answers = [reply.json()["choices"][0]["message"]["content"].strip() for reply in replies]
    assert answers == list(ours.values())
    assert len(set(answers)) > 1


def test_text_without_a_picture(url):
    body = {"model": "tiny", "messages": [{"role": "user", "content": "What is <image>?"}], "max_tokens": 4}
    assert httpx.post(f"{url}/v1/chat/completions", json=body, timeout=120).status_code == 200

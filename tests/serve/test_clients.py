"""Clients that people have already, unmodified."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys

import pytest

from .conftest import chat, data_url, noise, said

PICTURE = data_url(noise())


def content(question: str = "What?"):
    return chat(question, PICTURE)["messages"]


def test_openai(url):
    import openai

    client = openai.OpenAI(base_url=f"{url}/v1", api_key="none")
    assert [model.id for model in client.models.list()] == ["small"]
    expected = said(url, chat("What?", PICTURE))
    whole = client.chat.completions.create(model="small", messages=content(), max_tokens=8, temperature=0)
    assert whole.choices[0].message.content == expected
    assert len(whole.igva["layer_weights"]) == len(whole.igva["layer_groups"])
    parts = client.chat.completions.create(
        model="small",
        messages=content(),
        max_tokens=8,
        temperature=0,
        stream=True,
        stream_options={"include_usage": True},
    )
    chunks = list(parts)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == expected
    assert chunks[-1].usage == whole.usage
    probable = client.chat.completions.create(
        model="small", messages=content(), max_completion_tokens=3, logprobs=True, top_logprobs=2, n=2, seed=1
    )
    assert [len(choice.logprobs.content[0].top_logprobs) for choice in probable.choices] == [2, 2]
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(model="gpt", messages=content())
    assert missing.value.code == "model_not_found"
    with pytest.raises(openai.BadRequestError, match="at most"):
        client.chat.completions.create(model="small", messages=content(), max_tokens=10**6)


@pytest.mark.skipif(shutil.which("curl") is None, reason="there is no curl")
def test_curl(url):
    body = json.dumps(chat("What?", PICTURE, stream=True))
    command = ["curl", "-sN", f"{url}/v1/chat/completions", "-H", "Content-Type: application/json", "-d", "@-"]
    shown = subprocess.run(command, input=body, capture_output=True, text=True, check=True).stdout
    pieces = [json.loads(line[6:]) for line in shown.splitlines() if line.startswith("data: {")]
    text = "".join(piece["choices"][0]["delta"].get("content", "") for piece in pieces)
    assert text == said(url, chat("What?", PICTURE)) and shown.endswith("data: [DONE]\n\n")


def test_langchain(url):
    langchain = pytest.importorskip("langchain_openai")
    model = langchain.ChatOpenAI(model="small", base_url=f"{url}/v1", api_key="none", temperature=0, max_tokens=8)
    expected = said(url, chat("What?", PICTURE))
    assert model.invoke(content()).content == expected
    assert "".join(part.content for part in model.stream(content())) == expected


def test_llm(url, tmp_path, monkeypatch):
    pytest.importorskip("llm")
    (tmp_path / "extra-openai-models.yaml").write_text(
        f"- model_id: small\n  model_name: small\n  api_base: {url}/v1\n  vision: true\n"
    )
    (tmp_path / "picture.png").write_bytes(noise())
    command = [sys.executable, "-m", "llm", "-m", "small", "What?", "-a", "picture.png", "-o", "temperature", "0"]
    shown = subprocess.run(
        [*command, "-o", "max_tokens", "8"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={"LLM_USER_PATH": str(tmp_path), "PATH": "", "HOME": str(tmp_path), "OPENAI_API_KEY": "none"},
    )
    body = chat("What?", PICTURE)
    body["messages"][0]["content"].reverse()  # it sends the words before the picture
    assert shown.stdout.strip() == said(url, body).strip(), shown.stderr

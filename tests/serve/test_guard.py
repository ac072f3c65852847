"""Who may ask, how much may come in, and what an error says (S6, S7, S8)."""

from __future__ import annotations

import json
import socket
import time

import httpx
import pytest

from igva.serve.app import Settings
from igva.serve.guard import is_loopback
from igva.serve.limits import Limits

from .conftest import LIMITS, ask, chat, data_url, metric

ROUTES = (
    ("GET", "/"),
    ("GET", "/metrics"),
    ("GET", "/v1/models"),
    ("GET", "/v1/models/small"),
    ("GET", "/openapi.json"),
    ("GET", "/no/such/thing"),
    ("POST", "/v1/chat/completions"),
    ("POST", "/igva/attention"),
    ("OPTIONS", "/v1/chat/completions"),
)
KEY = "a-long-secret"


@pytest.fixture(scope="module")
def locked(small):
    from igva.serve.app import create_app

    from .conftest import serving

    with serving(create_app(*small, Settings("small", api_key=KEY, limits=LIMITS))) as address:
        yield address


@pytest.mark.parametrize(("method", "path"), ROUTES)
@pytest.mark.parametrize(
    "header",
    [None, "", "Bearer", "Bearer wrong", f"Bearer {KEY}x", f"Bearer {KEY[:-1]}", KEY, "Basic eDp3cm9uZw==", "Basic !!"],
)
def test_every_route_wants_the_key(method, path, header, locked):
    headers = {} if header is None else {"Authorization": header}
    response = httpx.request(method, locked + path, headers=headers, json=chat() if method == "POST" else None)
    assert response.status_code == 401
    assert response.json()["error"]["code"] == "invalid_api_key"
    assert KEY not in response.text and response.headers["www-authenticate"].startswith("Basic")


def test_health_needs_no_key(locked):
    assert httpx.get(f"{locked}/health").json() == {"status": "ok"}


def test_the_key_opens(locked):
    for auth in ({"headers": {"Authorization": f"Bearer {KEY}"}}, {"auth": ("anybody", KEY)}):
        assert httpx.get(f"{locked}/v1/models", **auth).status_code == 200
        assert ask(locked, chat(), **auth).status_code == 200


def test_another_host_name_is_somebodys_rebinding(url):
    for host in ("evil.example", "evil.example:8000", "127.0.0.1.evil.example", ""):
        response = httpx.get(f"{url}/v1/models", headers={"Host": host})
        assert response.status_code == 403
    for host in ("localhost", "localhost:1234", "127.0.0.1", "[::1]:80"):
        assert httpx.get(f"{url}/v1/models", headers={"Host": host}).status_code == 200


def test_loopback():
    assert all(map(is_loopback, ("127.0.0.1", "127.8.9.1", "localhost", "::1", "[::1]")))
    assert not any(map(is_loopback, ("0.0.0.0", "::", "192.168.0.1", "example.org", "")))


def test_a_form_of_another_site_is_not_taken(url):
    """A browser sends text/plain across sites without asking first."""
    response = httpx.post(
        f"{url}/v1/chat/completions", content=json.dumps(chat()), headers={"Content-Type": "text/plain"}
    )
    assert response.status_code == 400
    assert not {name for name in response.headers if name.startswith("access-control")}


# --- too much (S6) ------------------------------------------------------------------------------------------------


def body_of(size: int) -> bytes:
    return json.dumps(chat("x" * size)).encode()


def test_a_body_that_is_too_large(serve):
    url = serve(Settings("small", limits=Limits(body_bytes=2**20)))
    assert ask(url, chat("x", data_url(b"x" * 2**20))).status_code == 413
    host, port = url.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as client:  # told by its header, before it is sent
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 99999999999\r\n\r\n"
        )
        assert client.recv(1000).startswith(b"HTTP/1.1 413")
    with socket.create_connection((host, int(port))) as client:  # and where no header tells
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        sent = 0
        try:
            while sent < 4 * 2**20:
                client.sendall(b"10000\r\n" + b" " * 65536 + b"\r\n")
                sent += 65536
        except (BrokenPipeError, ConnectionResetError):
            pass
        else:
            client.sendall(b"0\r\n\r\n")
        try:
            assert client.recv(1000).startswith(b"HTTP/1.1 413")
        except ConnectionResetError:
            assert sent < 4 * 2**20
    assert httpx.get(f"{url}/health").status_code == 200


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"n": 9}, "n"),
        ({"n": 10**9}, "n"),
        ({"n": 0}, "n"),
        ({"max_tokens": 65}, "max_tokens"),
        ({"max_tokens": 10**12}, "max_tokens"),
        ({"max_completion_tokens": 10**12}, "max_tokens"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"stop": ["a"] * 5}, "stop"),
        ({"stop": [""]}, "stop"),
        ({"top_logprobs": 21, "logprobs": True}, "top_logprobs"),
        ({"top_logprobs": 1}, "top_logprobs"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"seed": 2**70}, "seed"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages.0.role"),
        ({"tools": [{}]}, "tools"),
        ({"response_format": {"type": "json_object"}}, "response_format"),
        ({"logit_bias": {"1": 2}}, "logit_bias"),
        ({"frequency_penalty": 1}, "frequency_penalty"),
    ],
)
def test_wishes_beyond_the_limits(fields, param, url):
    body = json.dumps(chat(**fields))
    response = httpx.post(
        f"{url}/v1/chat/completions", content=body, headers={"Content-Type": "application/json"}, timeout=30
    )
    assert response.status_code == 400, response.text
    assert response.json()["error"]["param"] == param


def test_too_many_pictures_are_refused_before_one_is_decoded(url):
    broken = data_url(b"not a picture")
    response = ask(url, chat("?", *[broken] * 9))
    assert response.status_code == 400 and "at most 8 pictures" in response.json()["error"]["message"]


def test_a_prompt_beyond_the_context(url):
    start = time.perf_counter()
    response = ask(url, chat("x" * 200_000))
    assert response.status_code == 400 and time.perf_counter() - start < 5
    assert response.json()["error"]["code"] == "context_length_exceeded"


# --- what errors say (S8) -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/v1/chat/completions", b"{", 400),
        ("POST", "/v1/chat/completions", b"[]", 400),
        ("POST", "/v1/chat/completions", b"null", 400),
        ("POST", "/v1/chat/completions", b"\xff\xfe", 400),
        ("POST", "/v1/chat/completions", b"", 400),
        ("POST", "/v1/chat/completions", b"[" * 100_000, 400),
        ("GET", "/v1/chat/completions", b"", 405),
        ("DELETE", "/v1/models", b"", 405),
        ("GET", "/v1/nothing", b"", 404),
        ("GET", "/v1/models/other", b"", 404),
        ("GET", "/../../etc/passwd", b"", 404),
        ("GET", "/%2e%2e/%2e%2e/etc/passwd", b"", 404),
        ("GET", "/..%2f..%2fetc%2fpasswd", b"", 404),
        ("POST", "/v1/chat/completions", json.dumps(chat(model="gpt-4")).encode(), 404),
        ("POST", "/v1/chat/completions", json.dumps(chat("?", "file:///etc/passwd")).encode(), 400),
        ("POST", "/v1/chat/completions", json.dumps(chat("?", "http://127.0.0.1/x")).encode(), 400),
        ("POST", "/v1/chat/completions", json.dumps(chat("?", data_url(b"xyz" * 50))).encode(), 400),
        ("POST", "/igva/attention", json.dumps({"image": data_url(b"xyz" * 50)}).encode(), 400),
        ("POST", "/igva/attention", b"{}", 400),
    ],
)
def test_errors_have_openais_shape_and_no_secrets(method, path, body, status, url):
    response = httpx.request(method, url + path, content=body, headers={"Content-Type": "application/json"})
    assert response.status_code == status
    assert set(response.json()["error"]) == {"message", "type", "param", "code"}
    for secret in ("127.0.0.1", "/etc", "Traceback", "site-packages", "igva/serve", "eHl6", "line 1 column"):
        assert secret not in response.text or (secret in path and "0x" not in response.text)


def test_a_failing_model_says_nothing_about_itself(small, serve, monkeypatch):
    url = serve(Settings("small", limits=LIMITS))
    monkeypatch.setattr(small[0], "forward", lambda *args, **kwargs: 1 / 0)
    for stream in (False, True):
        response = ask(url, chat(stream=stream))
        assert response.status_code == 500
        assert response.json()["error"] == {
            "message": "the model failed on this request",
            "type": "server_error",
            "param": None,
            "code": None,
        }
    monkeypatch.undo()
    assert ask(url, chat()).status_code == 200  # the server lives on


def test_headers_that_protect_a_browser(url):
    for path in ("/health", "/no/such/thing"):
        headers = httpx.get(url + path).headers
        assert "default-src 'self'" in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff" and "server" not in headers


def test_what_was_refused_is_counted(url):
    httpx.get(f"{url}/v1/models", headers={"Host": "evil.example"})
    assert metric(url, 'igva_requests_total{path="other",status="403"}') >= 1

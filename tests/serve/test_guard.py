"""Who may ask, how much may come in, and what an error says (S6, S7, S8)."""

from __future__ import annotations

import asyncio
import contextlib
import json
import resource
import socket
import threading
import time
import tracemalloc
from dataclasses import replace

import httpx
import pytest

from igva.serve.app import Settings, create_app
from igva.serve.completions import Completions
from igva.serve.engine import Engine
from igva.serve.failure import Refusal
from igva.serve.guard import is_loopback
from igva.serve.limits import Limits
from igva.serve.protocol import ChatRequest

from .conftest import LIMITS, ask, chat, data_url, metric, noise, serving

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
    assert response.status_code == 415
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
        ({"max_completion_tokens": 10**12}, "max_completion_tokens"),
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
        ("POST", "/v1/chat/completions", json.dumps(chat("@")).encode().replace(b"@", b"\xed\xa0\xbd"), 400),
        ("POST", "/v1/chat/completions", json.dumps(chat("\ud83d")).encode("utf-16"), 400),
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


# --- what is made of a body counts, not what arrives ------------------------------------------------------------------


BODIES = {
    "a million zeros": (lambda: b'{"model":"small","messages":[' + b"0," * 500_000 + b"0]}", 413),
    "zeros": (lambda: b'{"model":"small","messages":[' + b"0," * 20_000 + b"0]}", 400),
    "brackets": (lambda: b'{"model":"small","messages":' + b"[" * 90_000, 400),
    "placeholders": (lambda: encoded(chat("<image>" * 40_000)), 400),
    "words": (lambda: encoded(chat("the cat sat " * 100_000)), 400),
    "empty messages": (lambda: encoded({"model": "small", "messages": [{"role": "user"}] * 20_000}), 400),
    "half an emoji": (lambda: encoded(chat("hi \ud83d")), 400),
    "a list": (lambda: b"[1]", 400),
    "nothing": (lambda: b"", 400),
}


def encoded(body: dict) -> bytes:
    return json.dumps(body).encode()


@pytest.mark.parametrize("kind", BODIES)
def test_a_body_is_bounded_before_the_work_it_makes(url, kind):
    make, status = BODIES[kind]
    began = time.monotonic()
    response = httpx.post(
        f"{url}/v1/chat/completions", content=make(), headers={"Content-Type": "application/json"}, timeout=30
    )
    assert response.status_code == status and response.json()["error"]["message"]
    assert time.monotonic() - began < 5


@pytest.mark.parametrize(
    ("part", "place"),
    [
        ({"type": "input_image", "image_url": "x"}, "messages.0.content.1"),
        ({"type": "text"}, "messages.0.content.1.text"),
        ({"type": "image_url", "image_url": None}, "messages.0.content.1.image_url"),
    ],
)
def test_the_part_that_is_wrong_is_named(url, part, place):
    body = chat()
    body["messages"][0]["content"] = [{"type": "text", "text": "What?"}, part]
    response = ask(url, body)
    assert response.status_code == 400 and response.json()["error"]["param"] == place


def test_null_is_what_was_left_out(url):
    assert ask(url, chat(stream=None, stream_options={"include_usage": None})).status_code == 200


@pytest.mark.parametrize("path", ["/health", "/metrics"])
def test_head(url, path):
    assert httpx.head(url + path).status_code == 200


@pytest.mark.parametrize("origin", ["https://example.org", "null", "http://localhost:1"])
def test_pages_of_other_origins_get_nothing(url, origin):
    for method, path in (("GET", "/v1/models"), ("POST", "/v1/chat/completions")):
        assert httpx.request(method, url + path, headers={"Origin": origin}).status_code == 403
    assert httpx.get(f"{url}/v1/models", headers={"Origin": url}).status_code == 200


@pytest.mark.parametrize("host", ["[::1]", "[::1]:80", "LOCALHOST", "localhost:9"])
def test_names_of_this_machine(url, host):
    assert httpx.get(f"{url}/v1/models", headers={"Host": host}).status_code == 200


# --- connections ------------------------------------------------------------------------------------------------------


def test_silent_and_slow_connections_make_room(small):
    limits = replace(LIMITS, connections=6, header_seconds=1.0, body_seconds=1.0)
    with serving(create_app(*small, Settings("tiny", limits=limits)), limits) as url:
        address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        silent = [socket.create_connection(address) for _ in range(20)]
        assert httpx.get(f"{url}/health", timeout=5).status_code == 200  # the one silent longest has to go
        late = socket.create_connection(address)
        late.sendall(b"GET /health HTTP/1.1\r\n")
        slow = socket.create_connection(address)
        slow.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 100\r\n\r\n{"
        )
        for each in (*silent, late, slow):
            each.settimeout(10)
        assert slow.recv(100).startswith(b"HTTP/1.1 408")
        for each in (*silent, late):
            with contextlib.suppress(ConnectionResetError):
                assert each.recv(100) == b""
            each.close()
        slow.close()


def test_many_that_come_at_once_leave_files_to_open(small, monkeypatch):
    """asyncio takes all that wait before it closes one, and where files run out it takes none for a second."""
    limits = replace(LIMITS, connections=40)
    app = create_app(*small, Settings("tiny", limits=limits))
    failures: list[object] = []
    monkeypatch.setattr(asyncio.BaseEventLoop, "call_exception_handler", lambda loop, told: failures.append(told))

    async def stalling(scope, receive, send):
        if scope.get("path") == "/stall":
            time.sleep(1)  # meanwhile all the others come
        await app(scope, receive, send)

    with serving(stalling, limits) as url:
        address = ("127.0.0.1", int(url.rsplit(":", 1)[1]))
        clients = [socket.socket() for _ in range(120)]
        stall = socket.create_connection(address)
        most = max(client.fileno() for client in (stall, *clients)) + 1 + limits.connections + 50
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, hard))
        try:
            stall.sendall(b"GET /stall HTTP/1.1\r\nHost: localhost\r\n\r\n")
            time.sleep(0.3)
            for client in clients:
                client.setblocking(False)
                client.connect_ex(address)
            assert httpx.get(f"{url}/health", timeout=20).status_code == 200
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            for client in (stall, *clients):
                client.close()
    assert not failures


def test_who_leaves_while_sending_is_no_fault_of_the_server(serve, caplog):
    url = serve(Settings("small", limits=LIMITS))
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as client:
        client.sendall(
            b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
            b"Content-Length: 1000\r\n\r\n{"
        )
        time.sleep(0.2)
    until = time.monotonic() + 20
    while 'status="499"' not in (told := httpx.get(f"{url}/metrics").text) and time.monotonic() < until:
        time.sleep(0.05)
    assert 'status="499"' in told and not caplog.records, "no traceback that a stranger can fill a disk with"


def test_encoded_pictures_are_let_go_once_read():
    body = ChatRequest.model_validate(chat("What?", data_url(noise(0)), data_url(noise(1))))
    assert all(len(url) > 100 for url in body.image_urls())
    body.let_go()
    assert body.image_urls() == ["", ""] and [item["type"] for item in body.chat()[0]["content"]].count("image") == 2


def test_what_waits_holds_no_encoded_pictures(serve, monkeypatch):
    """57 MB each, it was once: the body, its text and the bytes of the picture."""
    opened, begin = threading.Event(), Engine._begin
    monkeypatch.setattr(Engine, "_begin", lambda engine, jobs: (opened.wait(60), begin(engine, jobs)))
    url = serve(Settings("small", limits=Limits(active=1, waiting=8)))
    body = json.dumps(chat("What?", data_url(noise(5, size=1000)), max_tokens=1)).encode()
    head = "POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    whole = f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body
    port = int(url.rpartition(":")[2])
    clients = []
    tracemalloc.start()
    try:
        for _ in range(6):
            clients.append(socket.create_connection(("127.0.0.1", port)))
            clients[-1].sendall(whole)
        until = time.monotonic() + 60
        while metric(url, "igva_waiting") < 5 and time.monotonic() < until:  # one is being begun
            time.sleep(0.02)
        assert metric(url, "igva_waiting") == 5
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        opened.set()
        for each in clients:
            each.close()
    assert len(body) > 4_000_000 and held < len(body), f"{held:,} bytes for 6 that wait"


def test_as_many_are_prepared_at_once_as_may_wait():
    limits = replace(LIMITS, waiting=2, preparing=1)
    completions = Completions("small", None, None, None, None, limits)  # type: ignore[arg-type]
    inside: list[int] = []

    async def one(number: int, leave: asyncio.Event) -> None:
        async with completions.preparing():
            inside.append(number)
            await leave.wait()

    async def scene() -> None:
        leave = asyncio.Event()
        tasks = [asyncio.create_task(one(number, leave)) for number in range(3)]
        await asyncio.sleep(0.05)
        assert inside == [0], "the second waits for its place"
        with pytest.raises(Refusal) as refused:
            await tasks[2]
        assert refused.value.status == 429
        leave.set()
        await asyncio.gather(*tasks[:2])
        assert inside == [0, 1]

    asyncio.run(scene())

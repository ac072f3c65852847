"""Remote pictures: nobody gets the server to connect to where it should not (S1, S2)."""

from __future__ import annotations

import asyncio
import http.server
import threading
import time
from collections.abc import Iterator
from typing import Any

import httpcore
import pytest

from igva.serve.failure import Refusal
from igva.serve.fetch import Fetcher, is_public, resolve
from igva.serve.limits import Limits

from .conftest import noise

PUBLIC = "93.184.216.34"


class Site(http.server.BaseHTTPRequestHandler):
    """Says which hosts and paths it was asked for, and answers as the path says."""

    seen: list[tuple[str, str]]

    def do_GET(self) -> None:
        type(self).seen.append((self.headers["Host"], self.path))
        where, _, rest = self.path[1:].partition("/")
        if where == "to":
            self.send_response(302)
            self.send_header("Location", rest)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        if where == "loop":
            self.send_response(302)
            self.send_header("Location", f"/loop/{len(type(self).seen)}")
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        status = int(rest) if where == "status" else 200
        body = b"x" * int(rest) if where == "big" else noise()
        if where == "slow":
            time.sleep(1)
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        pass


@pytest.fixture
def site() -> Iterator[tuple[int, list[tuple[str, str]]]]:
    """A canary on loopback → its port, and what reached it."""
    handler = type("Canary", (Site,), {"seen": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server.server_address[1], handler.seen
    server.shutdown()
    server.server_close()


class ToCanary(httpcore.AsyncNetworkBackend):
    """Stands for the internet: public addresses lead to the canary, others fail the test."""

    def __init__(self, port: int):
        self.port, self.dialled, self.real = port, [], httpcore.AnyIOBackend()

    async def connect_tcp(self, host: str, port: int, **options: Any) -> httpcore.AsyncNetworkStream:
        assert is_public(host), f"{host} was dialled"
        self.dialled.append((host, port))
        return await self.real.connect_tcp("127.0.0.1", self.port, **options)


def fetcher(port: int, names: dict[str, Any], domains: tuple[str, ...] = (), **limits: Any) -> Fetcher:
    """Names are resolved as told; a list of lists is one answer after the other."""
    answers = {name: iter(found) for name, found in names.items() if found and isinstance(found[0], list)}

    async def look_up(host: str, port: int) -> list[str]:
        if host in answers:
            return next(answers[host])
        if host not in names:
            raise OSError("no such name")
        return list(names[host])

    return Fetcher(domains or tuple(names), Limits(**limits), look_up, ToCanary(port))


def get(fetcher: Fetcher, url: str) -> bytes:
    return asyncio.run(fetcher.fetch(url))


HOSTILE = (
    "http://127.0.0.1/a.png",
    "http://127.0.0.1:{port}/a.png",
    "http://localhost/a.png",
    "http://localhost:{port}/a.png",
    "http://localhost.localdomain/a.png",
    "http://0.0.0.0/a.png",
    "http://0/a.png",
    "http://127.1/a.png",
    "http://127.0.1/a.png",
    "http://2130706433/a.png",
    "http://0x7f000001/a.png",
    "http://0x7f.0.0.1/a.png",
    "http://0177.0.0.1/a.png",
    "http://017700000001/a.png",
    "http://127.000.000.001/a.png",
    "http://10.0.0.1/a.png",
    "http://172.16.0.1/a.png",
    "http://192.168.1.1/a.png",
    "http://169.254.169.254/latest/meta-data/",
    "http://100.64.0.1/a.png",
    "http://[::1]/a.png",
    "http://[::1]:{port}/a.png",
    "http://[::]/a.png",
    "http://[::ffff:127.0.0.1]/a.png",
    "http://[::ffff:7f00:1]/a.png",
    "http://[fe80::1]/a.png",
    "http://[fd00::1]/a.png",
    "http://[64:ff9b::7f00:1]/a.png",
    "http://[2002:7f00:1::]/a.png",
    "http://pictures.example@127.0.0.1/a.png",
    "http://127.0.0.1@pictures.example/a.png",
    "http://user:password@pictures.example/a.png",
    "http://pictures.example:{port}/a.png",
    "http://pictures.example:22/a.png",
    "http://pictures.example\\@127.0.0.1/a.png",
    "http://127.0.0.1#@pictures.example/a.png",
    "http://127.0.0.1\t/a.png",
    "http://pictures.example\r\nHost: 127.0.0.1/a.png",
    "http://pictures.example.evil.example/a.png",
    "http://evilpictures.example/a.png",
    "http://evil.example/a.png",
    "http://ⓛⓞⓒⓐⓛⓗⓞⓢⓣ/a.png",
    "http://①②⑦.⓪.⓪.①/a.png",
    "http:///a.png",
    "http://",
    "http:pictures.example/a.png",
    "//127.0.0.1/a.png",
    "https://127.0.0.1/a.png",
    "ftp://pictures.example/a.png",
    "gopher://127.0.0.1:{port}/_GET",
    "file:///etc/passwd",
    "http://inside.example/a.png",
    "http://mapped.example/a.png",
    "http://mixed.example/a.png",
    "http://link-local.example/a.png",
    "http://rebound.example/to/http://rebound.example/a.png",
    "http://pictures.example/to/http://127.0.0.1:{port}/a.png",
    "http://pictures.example/to/http://169.254.169.254/latest/meta-data/",
    "http://pictures.example/to///127.0.0.1:{port}/a.png",
    "http://pictures.example/to/file:///etc/passwd",
    "http://pictures.example/to/http://inside.example/a.png",
    "http://pictures.example/loop/0",
)
NAMES = {
    "pictures.example": [PUBLIC],
    "inside.example": ["10.1.2.3"],
    "mapped.example": ["::ffff:127.0.0.1"],
    "mixed.example": [PUBLIC, "127.0.0.1"],
    "link-local.example": ["169.254.169.254"],
    "localhost": ["127.0.0.1"],
    "rebound.example": [[PUBLIC], ["127.0.0.1"]],
}


@pytest.mark.parametrize("url", HOSTILE)
def test_hostile_addresses(url, site):
    """None makes the server dial a private address (``ToCanary`` would fail), and none gives bytes."""
    port, seen = site
    with pytest.raises(Refusal) as refused:
        get(fetcher(port, NAMES), url.replace("{port}", str(port)))
    assert refused.value.status == 400
    assert "127.0" not in refused.value.message and "10.1" not in refused.value.message
    assert all(path.startswith(("/to/", "/loop/")) for _, path in seen)  # only the first, allowed hop


def test_there_are_enough_of_them():
    assert len(set(HOSTILE)) >= 60


@pytest.mark.parametrize(
    "address",
    [
        *("127.0.0.1", "10.0.0.1", "172.31.0.1", "192.168.0.1", "169.254.169.254", "100.64.0.1", "0.0.0.0"),
        *("224.0.0.1", "255.255.255.255", "198.18.0.1", "192.0.2.1", "240.0.0.1", "::1", "::", "fe80::1", "fc00::1"),
        *("fe80::1%eth0", "::ffff:8.8.8.8", "64:ff9b::808:808", "2002:808:808::", "2001::1", "ff02::1"),
        *("2001:db8::1", "host", ""),
        *("192.0.0.8", "192.88.99.1", "168.63.129.16", "fec0::1", "3fff::1", "5f00::1"),  # is_global says otherwise
    ],
)
def test_addresses_nobody_is_sent_to(address):
    assert not is_public(address)


def test_public_addresses():
    assert is_public("93.184.216.34") and is_public("2606:2800:220:1::1")


def test_off_unless_domains_are_given():
    with pytest.raises(Refusal, match="switched off"):
        get(Fetcher(), "http://pictures.example/a.png")


def test_an_allowed_picture_comes(site):
    port, seen = site
    found = fetcher(port, {"pictures.example": [PUBLIC]})
    assert get(found, "http://pictures.example/a.png?size=2#part") == noise()
    assert seen == [("pictures.example", "/a.png?size=2")]
    assert found._dial.dialled == [(PUBLIC, 80)]  # what was checked is what was dialled


def test_redirects_inside_the_allowed_domains(site):
    port, seen = site
    names = {"pictures.example": [PUBLIC], "cdn.pictures.example": ["2606:2800:220:1::1"]}
    found = fetcher(port, names)
    assert get(found, "http://pictures.example/to/http://cdn.pictures.example/a.png") == noise()
    assert [host for host, _ in seen] == ["pictures.example", "cdn.pictures.example"]


def test_stars_are_for_what_is_below(site):
    port, _ = site
    names = {"a.example.org": [PUBLIC], "example.org": [PUBLIC], "a.b.example.org": [PUBLIC]}
    found = fetcher(port, names, domains=("*.example.org",))
    assert get(found, "http://a.example.org/x") and get(found, "http://a.b.example.org/x")
    for url in ("http://example.org/x", "http://badexample.org/x"):
        with pytest.raises(Refusal, match="not allowed"):
            get(found, url)


@pytest.mark.parametrize(
    ("path", "limits", "status", "told"),
    [
        ("big/3000000", {"image_bytes": 2**20}, 413, "at most 1 MB"),
        ("slow/1", {"fetch_seconds": 0.2}, 400, "too long"),
        ("status/404", {}, 400, "answered 404"),
        ("loop/1", {}, 400, "too often"),
    ],
)
def test_limits(path, limits, status, told, site):
    port, seen = site
    with pytest.raises(Refusal, match=told) as refused:
        get(fetcher(port, {"pictures.example": [PUBLIC]}, **limits), f"http://pictures.example/{path}")
    assert refused.value.status == status
    assert len(seen) <= 4


def test_a_name_that_does_not_exist(site):
    with pytest.raises(Refusal, match="could not be fetched"):
        get(fetcher(site[0], {}, domains=("nowhere.example",)), "http://nowhere.example/a.png")


def test_the_system_resolver():
    assert set(asyncio.run(resolve("localhost", 80))) & {"127.0.0.1", "::1"}

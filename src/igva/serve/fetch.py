"""Fetch a remote picture without being sent to places the client could not reach itself.

Off unless domains are allowed. A name is resolved once, all its addresses are checked, and a checked one is dialled:
a second answer of the name server is never asked for (rebinding). Every redirect starts over. No proxy, no cookies, no
credentials.
"""

from __future__ import annotations

import asyncio
import ipaddress
import re
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpcore

from igva.serve.failure import Refusal
from igva.serve.limits import Limits

Resolve = Callable[[str, int], Awaitable[Sequence[str]]]

_HOST = re.compile(r"(?=.{1,253}$)(?:[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9])?\.)*[a-z](?:[a-z0-9-]{0,61}[a-z0-9])?")
_REDIRECTS = (301, 302, 303, 307, 308)
_TRANSLATED = ipaddress.ip_network("64:ff9b::/96"), ipaddress.ip_network("64:ff9b:1::/48")  # NAT64
# Not public, whatever Python 3.11's table says (IANA's registries of special addresses), and Azure's host.
_SPECIAL = tuple(
    map(
        ipaddress.ip_network,
        ("192.0.0.0/24", "192.88.99.0/24", "168.63.129.16/32", "fec0::/10", "3fff::/20", "5f00::/16", "100:0:0:1::/64"),
    )
)


def is_public(address: str) -> bool:
    """Whether an address is one that anybody on the internet could be sent to.

    Addresses that carry another one inside (IPv4-mapped, 6to4, Teredo, NAT64) are not, whatever is inside.
    """
    try:
        ip = ipaddress.ip_address(address)
    except ValueError:
        return False
    if isinstance(ip, ipaddress.IPv6Address) and (
        ip.ipv4_mapped or ip.sixtofour or ip.teredo or ip.scope_id or any(ip in network for network in _TRANSLATED)
    ):
        return False
    if any(ip in network for network in _SPECIAL):
        return False
    return ip.is_global and not ip.is_multicast and not ip.is_reserved and not ip.is_unspecified


async def resolve(host: str, port: int) -> list[str]:
    """The addresses of a name, as the system resolves it."""
    loop = asyncio.get_running_loop()
    entries = await loop.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return [str(entry[4][0]) for entry in entries]


class Fetcher:
    """Fetches pictures of allowed domains.

    Args:
        domains: exact host names; ``*.example.org`` allows every name below example.org.
        limits: bytes, seconds and redirects.
        resolver: host and port → addresses.
        dial: opens the connection to a checked address.
    """

    def __init__(
        self,
        domains: Iterable[str] = (),
        limits: Limits | None = None,
        resolver: Resolve = resolve,
        dial: httpcore.AsyncNetworkBackend | None = None,
    ):
        self.domains = frozenset(domain.lower().rstrip(".") for domain in domains)
        self.limits = limits or Limits()
        self._resolver = resolver
        self._dial = dial or httpcore.AnyIOBackend()

    async def fetch(self, url: str) -> bytes:
        """The bytes behind a URL.

        Raises:
            Refusal: remote pictures are off, the address is not allowed, or the server did not give a picture in time.
        """
        if not self.domains:
            raise Refusal(400, "remote pictures are switched off here: send the picture as a data URL", "image_url")
        try:
            async with asyncio.timeout(self.limits.fetch_seconds):
                return await self._follow(url)
        except TimeoutError:
            raise Refusal(400, "the picture's server took too long", "image_url") from None
        except (httpcore.NetworkError, httpcore.ProtocolError, httpcore.TimeoutException, OSError):
            raise Refusal(400, "the picture could not be fetched", "image_url") from None

    async def _follow(self, url: str) -> bytes:
        backend = _CheckedBackend(self._resolver, self._dial)
        async with httpcore.AsyncConnectionPool(network_backend=backend, retries=0) as pool:
            for _ in range(self.limits.redirects + 1):
                target = self.check(url)
                headers = [(b"Host", target.netloc.encode()), (b"User-Agent", b"igva"), (b"Accept", b"image/*")]
                async with pool.stream("GET", target.geturl(), headers=headers) as response:
                    if response.status in _REDIRECTS:
                        named = {name.lower(): value for name, value in response.headers}
                        url = urljoin(url, named.get(b"location", b"").decode("ascii", "replace"))
                        continue
                    if response.status != 200:
                        raise Refusal(400, f"the picture's server answered {response.status}", "image_url")
                    return await self._read(response)
        raise Refusal(400, "the picture's address redirects too often", "image_url")

    async def _read(self, response: httpcore.Response) -> bytes:
        data = bytearray()
        async for chunk in response.aiter_stream():
            data += chunk
            if len(data) > self.limits.image_bytes:
                raise too_large(self.limits)
        return bytes(data)

    def check(self, url: str) -> Any:
        """The parts of an allowed URL; what is dialled is built from these very parts."""
        try:
            parts = urlsplit(url)
            port = parts.port
        except ValueError:
            raise _not_allowed() from None
        host = (parts.hostname or "").lower().rstrip(".")
        plain = url.isascii() and url.isprintable() and " " not in url and "\\" not in url
        default = {"http": 80, "https": 443}.get(parts.scheme)
        if not plain or default is None or port not in (None, default) or "@" in parts.netloc:
            raise _not_allowed()
        if not _HOST.fullmatch(host) or not self._allowed(host):
            raise _not_allowed()
        return parts._replace(netloc=host, fragment="", path=parts.path or "/")

    def _allowed(self, host: str) -> bool:
        above = host.split(".")
        return host in self.domains or any(
            f"*.{'.'.join(above[start:])}" in self.domains for start in range(1, len(above))
        )


class _CheckedBackend(httpcore.AsyncNetworkBackend):
    """Dials an address it has checked itself; TLS still names the host."""

    def __init__(self, resolver: Resolve, dial: httpcore.AsyncNetworkBackend):
        self._resolver, self._dial = resolver, dial

    async def connect_tcp(  # type: ignore[override]  # the pool gives the options by name
        self, host: str, port: int, **options: Any
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._resolver(host, port)
        if not addresses or not all(map(is_public, addresses)):
            raise _not_allowed()
        return await self._dial.connect_tcp(addresses[0], port, **options)


def too_large(limits: Limits) -> Refusal:
    """The refusal of a picture that has too many bytes."""
    return Refusal(413, f"a picture may have at most {limits.image_bytes // 2**20} MB", "image_url")


def _not_allowed() -> Refusal:
    return Refusal(400, "pictures from this address are not allowed here", "image_url")

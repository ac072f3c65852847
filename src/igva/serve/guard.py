"""What stands before every route: who may ask, how much may come in, which headers go out."""

from __future__ import annotations

import base64
import binascii
import hmac
import ipaddress
import json
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from igva.serve.bodies import BODY, Message, Receive, Room
from igva.serve.failure import Refusal
from igva.serve.limits import Limits

Send = Callable[[Message], Awaitable[None]]
App = Callable[[MutableMapping[str, Any], Receive, Send], Awaitable[None]]

OPEN = ("/health",)  # routes that need no key
_HEADERS = {
    "content-security-policy": "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "cache-control": "no-store",
}


def is_loopback(host: str) -> bool:
    """Whether a bind address is reachable from this machine alone."""
    try:
        return ipaddress.ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _name(host: str) -> str:
    """A ``Host`` header without its port."""
    return host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]


class Guard:
    """Wraps an ASGI application.

    Args:
        api_key: wanted as ``Authorization: Bearer KEY``; as a Basic password too, so that a browser can show the page.
        local_only: the server listens on this machine alone: other ``Host`` names are somebody's rebinding.
        count: is told the route and the status of every response.
    """

    def __init__(
        self, app: App, limits: Limits, api_key: str | None, local_only: bool, count: Callable[[str, int], None]
    ):
        self.app, self.local_only, self.count = app, local_only, count
        self.room = Room(limits)
        self._key = api_key.encode() if api_key else None

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        headers = {name.lower(): value for name, value in scope["headers"]}
        try:
            self._check(scope["path"], headers)
            _check_sender(scope["method"], headers)
            body = self.room.enter(receive, headers.get(b"content-length"))
        except Refusal as refusal:
            await self._refuse(scope, refusal, send, close=refusal.status == 413)
            return
        started = False

        async def send_with_headers(message: Message) -> None:
            nonlocal started
            if body.refusal is not None:  # whatever the application makes of a body that broke off
                if not started:
                    started = True
                    await self._refuse(scope, body.refusal, send, close=True)
                return
            if message["type"] == "http.response.start":
                started = True
                self.count(_route(scope), message["status"])
                names = {name.lower() for name, _ in message["headers"]}
                extra = [(k.encode(), v.encode()) for k, v in _HEADERS.items() if k.encode() not in names]
                message = {**message, "headers": [*message["headers"], *extra]}
            await send(message)

        scope[BODY] = body
        try:
            await self.app(scope, body.receive, send_with_headers)
        except Refusal as refusal:
            if started:
                raise
            await self._refuse(scope, refusal, send, close=not body.complete)
        finally:
            body.let_go()

    async def _refuse(self, scope: MutableMapping[str, Any], refusal: Refusal, send: Send, close: bool) -> None:
        """Say it, and hang up where more of the body would come."""
        self.count(_route(scope), refusal.status)
        await _respond(refusal, send, close)

    def _check(self, path: str, headers: dict[bytes, bytes]) -> None:
        host = _name(headers.get(b"host", b"").decode("latin-1"))
        if self.local_only and not is_loopback(host):
            raise Refusal(403, "this server answers on this machine alone")
        if self._key is not None and path not in OPEN and not self._knows_key(headers.get(b"authorization", b"")):
            raise Refusal(401, "give the API key: Authorization: Bearer …", code="invalid_api_key")

    def _knows_key(self, header: bytes) -> bool:
        scheme, _, given = header.partition(b" ")
        if scheme.lower() == b"basic":
            try:
                given = base64.b64decode(given, validate=True).partition(b":")[2]
            except (binascii.Error, ValueError):
                return False
        elif scheme.lower() != b"bearer":
            return False
        return hmac.compare_digest(given, self._key or b"")


def _check_sender(method: str, headers: dict[bytes, bytes]) -> None:
    """Refuse what a page of another origin makes a browser send; a form or a plain text needs nobody's leave for it."""
    origin = headers.get(b"origin")
    if origin is not None and origin.partition(b"://")[2].lower() != headers.get(b"host", b"").lower():
        raise Refusal(403, "this server answers no pages of other origins")
    if method == "POST" and headers.get(b"content-type", b"").partition(b";")[0].strip().lower() != b"application/json":
        raise Refusal(415, "send the body as JSON: Content-Type: application/json")


def _route(scope: MutableMapping[str, Any]) -> str:
    """The route's pattern, so that no client decides how many of them are counted."""
    return str(getattr(scope.get("route"), "path", "") or "other")


async def _respond(refusal: Refusal, send: Send, close: bool) -> None:
    body = json.dumps(refusal.body()).encode()
    headers = {**_HEADERS, "content-type": "application/json", "content-length": str(len(body))}
    if refusal.status == 401:
        headers["www-authenticate"] = 'Basic realm="igva"'
    if close:
        headers["connection"] = "close"
    raw = [(name.encode(), value.encode()) for name, value in headers.items()]
    await send({"type": "http.response.start", "status": refusal.status, "headers": raw})
    await send({"type": "http.response.body", "body": body})

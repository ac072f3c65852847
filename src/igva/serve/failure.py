"""The one exception a client of the server is meant to read."""

from __future__ import annotations

from typing import Any


class Refusal(Exception):
    """A request that is not answered: becomes a response in OpenAI's error shape.

    Attributes:
        status: of HTTP, 4xx or 5xx.
        message: one line for the client; never an address, a path or anything the client did not send.
        param: the field of the request it is about.
        code: OpenAI's short name for it.
    """

    def __init__(self, status: int, message: str, param: str | None = None, code: str | None = None):
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code

    def body(self) -> dict[str, Any]:
        """The JSON of the response."""
        return {"error": {"message": self.message, "type": self.kind, "param": self.param, "code": self.code}}

    @property
    def kind(self) -> str:
        """OpenAI's ``type`` of the error."""
        named = {401: "authentication_error", 404: "not_found_error", 429: "rate_limit_error"}
        return named.get(self.status, "invalid_request_error" if self.status < 500 else "server_error")


def overloaded() -> Refusal:
    """The refusal where as many wait already as may."""
    return Refusal(429, "too many requests are waiting: try again in a moment", code="overloaded")


def client_left() -> Refusal:
    """Nobody reads it: the status is nginx's, for the counts."""
    return Refusal(499, "the client left")

"""Connections: how many there may be, and how long one may take to say what it wants.

uvicorn bounds neither: a few hundred silent connections use up the process's file descriptors, and then nobody is
answered, not even ``/health``.
"""

from __future__ import annotations

import asyncio
import sys
from typing import Any

from uvicorn.protocols.http.h11_impl import H11Protocol

from igva.serve.limits import Limits

SPARE_FILES = 64  # of the process: for the model, the page, remote pictures
ACCEPT_AT_ONCE = 8  # before those that are too many are closed again: some rounds of it must fit the spare files


def protocol_for(limits: Limits) -> type[H11Protocol]:
    """The class that uvicorn makes one of for each connection."""
    most = max(1, min(limits.connections, _most_files() - SPARE_FILES))
    return type("PatientProtocol", (_Patient,), {"most": most, "seconds": limits.header_seconds})


def _most_files() -> int:
    if sys.platform == "win32":  # sockets are no files there
        return 2**31
    import resource

    soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return 2**31 if soft == resource.RLIM_INFINITY else soft


class _Patient(H11Protocol):
    """A connection that is closed when its next request does not come in time.

    Where there are too many, the one that has waited longest without a request has to go; if all are being answered,
    the new one.
    """

    most: int
    seconds: float

    def connection_made(self, transport: Any) -> None:
        self._timer: asyncio.TimerHandle | None = None
        self._silent_since = 0.0
        super().connection_made(transport)
        self._watch()
        # Of several that come in one moment each has another one to go, though none is gone yet.
        there = [each for each in self.connections if isinstance(each, _Patient) and not each.transport.is_closing()]
        if len(there) > self.most:
            silent = [each for each in there if each.silent]
            oldest = min(silent, key=lambda each: each._silent_since, default=self)
            oldest.transport.abort()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch()

    def on_response_complete(self) -> None:
        super().on_response_complete()
        self._watch()

    def connection_lost(self, exc: Exception | None) -> None:
        self._rest()
        super().connection_lost(exc)

    @property
    def silent(self) -> bool:
        """Nothing has been asked for, or it is answered."""
        return self.cycle is None or self.cycle.response_complete

    def _watch(self) -> None:
        if not self.silent:
            self._rest()
        elif self._timer is None:
            self._silent_since = self.loop.time()
            self._timer = self.loop.call_later(self.seconds, self._give_up)

    def _rest(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _give_up(self) -> None:
        self._timer = None
        if self.silent and not self.transport.is_closing():
            self.transport.abort()

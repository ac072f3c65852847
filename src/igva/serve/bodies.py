"""The bodies of requests: how large one may be, how long it may take to arrive, and how much all of them may hold."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from igva.serve.failure import Refusal, overloaded
from igva.serve.limits import Limits

Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]

BODY = "igva.body"  # in a request's scope: its `Body`
SMALL = 2**16  # bytes: a body up to this size always finds room
LARGE = 2**20  # bytes: bodies above this size take turns, until the model has read what they say
TURN_SECONDS = 0.3  # that a turn goes on at most once nothing keeps the body's bytes: the model may be busy for long


class Room:
    """The memory that bodies share, from their first byte until they are let go.

    Where there is no more, one of those that are still on their way has to go: the one that has held most for longest
    (bytes times seconds), so that whoever sends little, or at once, is not refused for who sends much, and late.
    """

    def __init__(self, limits: Limits):
        self.limits = limits
        self.turns = asyncio.Semaphore(1)  # of the large ones
        self._bodies: set[Body] = set()

    @property
    def held(self) -> int:
        """Bytes."""
        return sum(body.held for body in self._bodies)

    def enter(self, receive: Receive, declared: bytes | None) -> Body:
        """A body that begins to arrive; its owner closes it.

        Args:
            declared: its ``Content-Length``.

        Raises:
            Refusal: it says of itself that it is too large.
        """
        body = Body(self, receive)
        if declared is not None and (not declared.isdigit() or int(declared) > self.limits.body_bytes):
            raise body.too_large()
        self._bodies.add(body)
        return body

    def leave(self, body: Body) -> None:
        self._bodies.discard(body)

    def make_way(self, body: Body) -> None:
        """Refuse bodies until there is room for this one, or refuse it."""
        while self.held > self.limits.bodies_bytes and body.held > SMALL:
            arriving = [each for each in self._bodies if not each.complete and each.held > SMALL] or [body]
            dearest = max(arriving, key=lambda each: each.held * each.age)
            dearest.refuse(overloaded())
            if dearest is body:
                break


class Body:
    """One request's.

    Attributes:
        held: bytes of it that are in memory.
        complete: all of it is there.
        refusal: why it is not taken.
    """

    def __init__(self, room: Room, receive: Receive):
        self._room, self._receive = room, receive
        self._began = asyncio.get_running_loop().time()
        self._until: float | None = self._began + room.limits.body_seconds
        self._patience: asyncio.Timeout | None = None
        self.held, self.complete, self._has_turn = 0, False, False
        self.refusal: Refusal | None = None

    async def receive(self) -> Message:
        """ASGI's ``receive``.

        Raises:
            Refusal: it is too large, takes too long, or has to make way.
        """
        if self.refusal is not None:
            raise self.refusal
        try:
            async with asyncio.timeout_at(self._until) as self._patience:
                message = await self._receive()
        except TimeoutError:
            self.refusal = self.refusal or Refusal(408, "the request's body did not arrive in time")
            raise self.refusal from None
        finally:
            self._patience = None
        if self.complete:  # what comes now is that the client left
            return message
        self.held += len(message.get("body", b""))
        self.complete = not message.get("more_body", False)
        if self.complete:
            self._until = None
        if self.held > self._room.limits.body_bytes:
            self.refusal = self.too_large()
        else:
            self._room.make_way(self)
        if self.refusal is not None:
            raise self.refusal
        return message

    @property
    def age(self) -> float:
        """Seconds since it began to arrive."""
        return asyncio.get_running_loop().time() - self._began

    def refuse(self, refusal: Refusal) -> None:
        """Have ``receive`` raise this, also where it is being waited for."""
        self.refusal = refusal
        self.let_go()
        if self._patience is not None:
            with contextlib.suppress(RuntimeError):  # its time is up in this very moment
                self._patience.reschedule(asyncio.get_running_loop().time())

    @property
    def is_large(self) -> bool:
        """It needs a turn; who sends little never waits for who sends much."""
        return self.held > LARGE

    async def turn(self) -> None:
        """Wait until no other large one has the turn."""
        await self._room.turns.acquire()
        self._has_turn = True

    def forget(self) -> None:
        """Nothing keeps its bytes any more; its turn ends with ``let_go``, or soon."""
        self._leave()
        if self._has_turn:
            asyncio.get_running_loop().call_later(TURN_SECONDS, self.let_go)

    def _leave(self) -> None:
        self.held = 0
        self._room.leave(self)

    def let_go(self) -> None:
        """Nothing keeps its bytes any more, and the next large one may be read."""
        self._leave()
        if self._has_turn:
            self._room.turns.release()
            self._has_turn = False

    def too_large(self) -> Refusal:
        return Refusal(413, f"a request may have at most {self._room.limits.body_bytes // 2**20} MB")

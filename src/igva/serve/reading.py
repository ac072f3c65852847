"""The body of a request → what it says. Bounds come before the work they bound."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable
from typing import Any, TypeVar

from fastapi import Request
from pydantic import BaseModel, ValidationError
from starlette.requests import ClientDisconnect

from igva.serve.bodies import BODY
from igva.serve.failure import Refusal, client_left
from igva.serve.pieces import pieces
from igva.serve.strict_json import read_json

Body = TypeVar("Body", bound=BaseModel)
Result = TypeVar("Result")
MOST_VALUES = 100_000  # of a body: commas and brackets, whether they stand in a text or not


def documented(kind: type[BaseModel]) -> dict[str, Any]:
    """What OpenAPI is to say of a route that reads such a body; its schema stands whole in it."""
    schema = kind.model_json_schema()
    parts = schema.pop("$defs", {})

    def whole(entry: Any) -> Any:
        if isinstance(entry, list):
            return [whole(each) for each in entry]
        if not isinstance(entry, dict):
            return entry
        if "$ref" in entry:
            return whole(parts[entry["$ref"].rpartition("/")[2]])
        # A discriminator refers to parts by name; "oneOf" says the same.
        return {name: whole(value) for name, value in entry.items() if name != "discriminator"}

    return {"requestBody": {"required": True, "content": {"application/json": {"schema": whole(schema)}}}}


async def read(request: Request, kind: type[Body]) -> Body:
    """The request's body as an object of this kind; nothing keeps the bytes.

    Raises:
        Refusal: the client left; or it is no JSON object, holds too many values, or says something that the kind does
            not know.
    """
    try:
        data = b"".join([chunk async for chunk in request.stream()])
    except ClientDisconnect:
        raise client_left() from None
    if request.scope[BODY].is_large:
        await unless_left(request, request.scope[BODY].turn())
    return await asyncio.to_thread(_parse, data, kind)


async def unless_left(request: Request, work: Coroutine[Any, Any, Result]) -> Result:
    """The result, unless the client hangs up before it is there."""
    task = asyncio.ensure_future(work)
    watch = asyncio.ensure_future(_left(request))
    try:
        await asyncio.wait({task, watch}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            return task.result()
        raise client_left()
    finally:
        for each in (task, watch):
            each.cancel()


async def _left(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


def _parse(data: bytes, kind: type[Body]) -> Body:
    values = sum(piece.count(mark) for piece in pieces(data) for mark in (b",", b"[", b"{"))
    if values > MOST_VALUES:
        raise Refusal(413, f"the body holds {values:,} values: at most {MOST_VALUES:,} are read")
    try:
        entry = read_json(data)
    except ValueError as error:
        raise Refusal(400, f"the body {str(error).partition(':')[0]}") from None  # where in it is no matter
    try:
        return kind.model_validate(entry)
    except ValidationError as error:
        raise _refusal(error.errors(include_url=False, include_context=False, include_input=False)) from None
    except RecursionError:
        raise Refusal(400, "the body is nested too deeply") from None


def _refusal(errors: Iterable[Any]) -> Refusal:
    """Of the error that lies deepest: of a union's branches it is the one that was meant."""
    deepest = max(errors, key=lambda each: len(each["loc"]))
    place = _place(deepest["loc"])
    return Refusal(400, f"{place or 'the body'}: {deepest['msg']}", place or None)


def _place(location: tuple[int | str, ...]) -> str:
    """``messages.0.content.1.text``, without pydantic's names of a union's branches."""
    steps: list[str] = []
    for number, step in enumerate(location):
        of_list = number > 0 and isinstance(location[number - 1], int)
        tag = of_list and step in ("text", "image_url") and number < len(location) - 1
        if not tag and not (isinstance(step, str) and ("[" in step or step == "str")):
            steps.append(str(step))
    return ".".join(steps)[:200]

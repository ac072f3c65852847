"""The web application: OpenAI's routes, health, metrics, and the page."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from fastapi import FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response, StreamingResponse
from fastapi.staticfiles import StaticFiles
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from igva import __version__
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.serve.attention_maps import attention_maps
from igva.serve.bodies import BODY
from igva.serve.completions import Completions, Conversation
from igva.serve.engine import Engine
from igva.serve.failure import Refusal
from igva.serve.fetch import Fetcher
from igva.serve.guard import App, Guard
from igva.serve.layer_store import LayerStore
from igva.serve.limits import Limits
from igva.serve.local_files import LocalFiles
from igva.serve.metrics import Metrics
from igva.serve.pictures import PictureSource
from igva.serve.prompt import PromptMaker
from igva.serve.protocol import ChatRequest
from igva.serve.reading import documented, read, unless_left

LOG = logging.getLogger("igva.serve")
PAGE = Path(__file__).parent / "page"

Result = TypeVar("Result")


@dataclass(frozen=True)
class Settings:
    """How a server is run.

    Attributes:
        name: of the model, in ``/v1/models`` and in requests.
        api_key: None: none is asked for.
        local_only: the server listens on this machine alone.
        store_bytes: for the layer means of recent pictures.
    """

    name: str
    api_key: str | None = None
    local_only: bool = True
    store_bytes: int = 256 * 2**20
    limits: Limits = field(default_factory=Limits)


class AttentionRequest(BaseModel):
    """``image``: a URL as in a chat request."""

    image: str


def create_app(
    model: IgvaForConditionalGeneration,
    processor: IgvaProcessor,
    settings: Settings,
    fetcher: Fetcher | None = None,
    files: LocalFiles | None = None,
) -> App:
    """The application behind its guard.

    Args:
        fetcher: of remote pictures; default: none are fetched.
        files: of local ones; default: none are read.
    """
    limits = settings.limits
    engine = Engine(model, processor, LayerStore(settings.store_bytes), limits)
    source = PictureSource(fetcher or Fetcher(limits=limits), files or LocalFiles(limits=limits), limits)
    most_characters = min(engine.context, 2**20) * limits.text_per_token
    maker = PromptMaker(processor, engine.store, source.open, most_characters)
    metrics = Metrics(engine)
    completions = Completions(settings.name, engine, maker, source, metrics, limits)
    created = int(time.time())

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        engine.start()
        yield
        await asyncio.to_thread(engine.stop)

    # The interactive documentation would load its scripts from elsewhere.
    app = FastAPI(title="igva", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan)
    _answer_errors(app)

    @app.api_route("/health", methods=["GET", "HEAD"])
    async def health() -> Response:
        alive = engine.alive
        return JSONResponse({"status": "ok" if alive else "the engine has stopped"}, 200 if alive else 503)

    @app.api_route("/metrics", methods=["GET", "HEAD"])
    async def read_metrics() -> PlainTextResponse:
        return PlainTextResponse(metrics.text(), media_type="text/plain; version=0.0.4")

    @app.get("/v1/models")
    async def models() -> dict[str, Any]:
        return {"object": "list", "data": [_model_entry(settings.name, created)]}

    @app.get("/v1/models/{name:path}")
    async def one_model(name: str) -> dict[str, Any]:
        _check_model(name, settings.name)
        return _model_entry(name, created)

    @app.post("/v1/chat/completions", response_model=None, openapi_extra=documented(ChatRequest))
    async def chat(request: Request) -> Response:
        body = await read(request, ChatRequest)
        _check_model(body.model, settings.name)
        conversation = await unless_left(request, completions.begin(body))
        request.scope[BODY].forget()
        try:
            await unless_left(request, conversation.start())
            request.scope[BODY].let_go()
            if body.stream:
                return _Stream(conversation)
            return JSONResponse(await unless_left(request, conversation.whole()))
        except BaseException:
            conversation.close()
            raise

    @app.post("/igva/attention", openapi_extra=documented(AttentionRequest))
    async def attention(request: Request) -> JSONResponse:
        body = await read(request, AttentionRequest)

        async def work() -> dict[str, Any]:
            async with completions.preparing():
                pixels = await asyncio.to_thread(maker.prepare, await source.get(body.image))
            body.image = ""  # not while it waits for the model
            request.scope[BODY].forget()
            return await asyncio.wrap_future(engine.call(lambda: attention_maps(model, pixels)))

        return JSONResponse(await unless_left(request, work()))

    # Routes, not a mount at "/", which would take every unknown path and turn a wrong method's 405 into a 404.
    page = StaticFiles(directory=PAGE, html=True)
    for path in ("/", "/{name}", "/examples/{name}"):
        app.router.routes.append(Route(path, page, methods=["GET"], include_in_schema=False))
    return Guard(app, limits, settings.api_key, settings.local_only, metrics.count)


class _Stream(StreamingResponse):
    """The answer as server-sent events; its place is free again however the response ends."""

    def __init__(self, conversation: Conversation):
        super().__init__(conversation.stream(), media_type="text/event-stream")
        self._conversation = conversation

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._conversation.close()


def _model_entry(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "igva"}


def _check_model(asked: str, name: str) -> None:
    if asked != name:
        raise Refusal(404, f"there is no such model here: ask for {name!r}", "model", "model_not_found")


def _answer_errors(app: FastAPI) -> None:
    """Every error has OpenAI's shape, and none tells more than the client knows."""

    def respond(request: Request, refusal: Refusal) -> JSONResponse:
        return JSONResponse(refusal.body(), refusal.status)

    @app.exception_handler(Refusal)
    async def refused(request: Request, error: Refusal) -> JSONResponse:
        return respond(request, error)

    @app.exception_handler(HTTPException)
    async def plain(request: Request, error: HTTPException) -> JSONResponse:
        return respond(request, Refusal(error.status_code, str(error.detail)))

    @app.exception_handler(Exception)
    async def broken(request: Request, error: Exception) -> JSONResponse:
        LOG.exception("unexpected", exc_info=error)
        return respond(request, Refusal(500, "the server failed on this request"))

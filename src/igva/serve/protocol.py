"""OpenAI's chat completions: what a request may say, and the shape of the answers."""

from __future__ import annotations

import time
import uuid
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from igva.serve.failure import Refusal
from igva.serve.limits import Limits


class Part(BaseModel):
    """Read but not understood fields are left out, as other servers do."""

    model_config = ConfigDict(extra="ignore")


class TextPart(Part):
    type: Literal["text"]
    text: str


class ImageUrl(Part):
    url: str
    detail: str | None = None  # of tiles, which igva does not make


def _address(value: Any) -> Any:
    return {"url": value} if isinstance(value, str) else value  # some clients leave the object out


class ImagePart(Part):
    type: Literal["image_url"]
    image_url: Annotated[ImageUrl, BeforeValidator(_address)]


ContentPart = Annotated[TextPart | ImagePart, Field(discriminator="type")]


class Message(Part):
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[ContentPart] | None = None


class StreamOptions(Part):
    include_usage: bool | None = None


class ChatRequest(Part):
    """A request for ``/v1/chat/completions``."""

    model: str
    messages: list[Message] = Field(min_length=1)
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    max_tokens: int | None = Field(None, ge=1)
    max_completion_tokens: int | None = Field(None, ge=1)
    min_tokens: int | None = Field(None, ge=0)  # vLLM's name: no end before so many
    temperature: float | None = Field(None, ge=0, le=2)
    top_p: float | None = Field(None, gt=0, le=1)
    n: int | None = Field(None, ge=1)
    seed: int | None = Field(None, ge=-(2**63), lt=2**63)
    stop: str | list[str] | None = None
    logprobs: bool | None = None
    top_logprobs: int | None = Field(None, ge=0, le=20)
    # Understood so that they can be refused: an answer without them would not be what was asked for.
    tools: list[Any] | None = None
    functions: list[Any] | None = None
    response_format: dict[str, Any] | None = None
    logit_bias: dict[str, Any] | None = None
    presence_penalty: float | None = None
    frequency_penalty: float | None = None
    audio: dict[str, Any] | None = None

    def check(self, limits: Limits) -> None:
        """Raise ``Refusal`` for what is beyond the limits, or what the server cannot do."""
        answers = self.n or 1
        if answers > limits.answers:
            raise Refusal(400, f"n may be at most {limits.answers}", "n")
        if (self.new_tokens or 0) > limits.new_tokens:
            name = "max_tokens" if self.max_completion_tokens is None else "max_completion_tokens"
            raise Refusal(400, f"{name} may be at most {limits.new_tokens}", name)
        if len(self.messages) > limits.messages:
            raise Refusal(400, f"a request may hold at most {limits.messages} messages", "messages")
        if len(self.stops) > 4 or not all(0 < len(stop) <= 256 for stop in self.stops):
            raise Refusal(400, "stop: up to 4 strings of 1 to 256 characters", "stop")
        if self.top_logprobs is not None and not self.logprobs:
            raise Refusal(400, "top_logprobs needs logprobs: true", "top_logprobs")
        if len(self.image_urls()) > limits.images:
            raise Refusal(400, f"a request may hold at most {limits.images} pictures", "messages")
        for message in self.messages:
            parts = message.content if isinstance(message.content, list) else []
            if message.role != "user" and any(part.type == "image_url" for part in parts):
                raise Refusal(400, f"a {message.role} message holds a picture: only user messages may", "messages")
        form = (self.response_format or {}).get("type", "text")
        for name in ("tools", "functions", "logit_bias", "presence_penalty", "frequency_penalty", "audio"):
            if getattr(self, name):
                raise Refusal(400, f"{name} is not supported here: leave it out", name)
        if form != "text":
            raise Refusal(400, "response_format: only text is supported here", "response_format")

    @property
    def new_tokens(self) -> int | None:
        """The longest answer wanted, by either of its names."""
        return self.max_completion_tokens if self.max_completion_tokens is not None else self.max_tokens

    @property
    def stops(self) -> list[str]:
        return [self.stop] if isinstance(self.stop, str) else self.stop or []

    def image_urls(self) -> list[str]:
        """Where the pictures are, in their order."""
        parts = [part for m in self.messages if isinstance(m.content, list) for part in m.content]
        return [part.image_url.url for part in parts if isinstance(part, ImagePart)]

    def let_go(self) -> None:
        """Forget the encoded pictures, which are large, once they have been read."""
        for message in self.messages:
            for part in message.content if isinstance(message.content, list) else []:
                if isinstance(part, ImagePart):
                    part.image_url.url = ""

    def chat(self) -> list[dict[str, Any]]:
        """The messages as the processor takes them; pictures have a place, and are handed over apart."""
        return [{"role": _role(message.role), "content": _content(message)} for message in self.messages]


def _role(role: str) -> str:
    return "system" if role == "developer" else role


def _content(message: Message) -> list[dict[str, Any]]:
    if message.content is None or isinstance(message.content, str):
        return [{"type": "text", "text": message.content or ""}]
    return [
        {"type": "text", "text": part.text} if isinstance(part, TextPart) else {"type": "image", "image": None}
        for part in message.content
    ]


class Envelope:
    """What all responses to one request have in common."""

    def __init__(self, model: str):
        self.model, self.id, self.created = model, f"chatcmpl-{uuid.uuid4().hex}", int(time.time())

    def completion(
        self, choices: list[dict[str, Any]], usage: dict[str, int], weights: dict[str, Any]
    ) -> dict[str, Any]:
        """A whole answer."""
        return self._outside("chat.completion") | {"choices": choices, "usage": usage, "igva": weights}

    def chunk(
        self,
        index: int,
        delta: dict[str, Any],
        finish: str | None = None,
        logprobs: list[Any] | None = None,
        **extra: Any,
    ) -> dict[str, Any]:
        """A piece of one choice."""
        choice = {"index": index, "delta": delta, "finish_reason": finish}
        choice["logprobs"] = None if logprobs is None else {"content": logprobs, "refusal": None}
        return self._outside("chat.completion.chunk") | {"choices": [choice]} | extra

    def usage_chunk(self, usage: dict[str, int]) -> dict[str, Any]:
        """The chunk after the last choice that ``stream_options.include_usage`` asks for."""
        return self._outside("chat.completion.chunk") | {"choices": [], "usage": usage}

    def _outside(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def usage(prompt_tokens: int, completion_tokens: int) -> dict[str, int]:
    """OpenAI's count of tokens."""
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }

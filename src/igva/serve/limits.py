"""What one request may ask for; everything is checked before a picture is decoded."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Limits:
    """Bounds of the server.

    Attributes:
        body_bytes: of a request, pictures included.
        bodies_bytes: of all requests together, until their pictures are decoded.
        images: per request.
        image_bytes: of one picture, encoded.
        image_pixels: of one picture, width times height; decoding takes 3 bytes for each, and some more.
        new_tokens: per answer.
        answers: ``n`` of a request.
        active: answers generated at once.
        waiting: answers that wait for their turn; more are told to come back later.
        preparing: requests whose pictures are decoded and whose texts are read at once.
        messages: of a request.
        text_per_token: characters of a request's texts, for each token that the model's context holds.
        connections: open at once; fewer where the process may not open so many files.
        header_seconds: that a connection may take to say what it wants.
        body_seconds: that a request's body may take to arrive.
        fetch_seconds: for one remote picture, redirects included.
        redirects: followed for one remote picture.
    """

    body_bytes: int = 32 * 2**20
    bodies_bytes: int = 256 * 2**20
    images: int = 8
    image_bytes: int = 16 * 2**20
    image_pixels: int = 32_000_000
    new_tokens: int = 1024
    answers: int = 8
    active: int = 16
    waiting: int = 256
    preparing: int = 2
    messages: int = 1024
    text_per_token: int = 16
    connections: int = 512
    header_seconds: float = 10.0
    body_seconds: float = 60.0
    fetch_seconds: float = 5.0
    redirects: int = 3

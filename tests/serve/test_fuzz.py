"""Requests nobody would write (S12)."""

from __future__ import annotations

import random
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, Phase, given, settings

from .conftest import ask, chat, data_url, noise

COUNT = 500


@pytest.mark.slow
def test_five_hundred_requests_of_our_own_schema(url):
    import schemathesis

    schema = schemathesis.openapi.from_url(f"{url}/openapi.json")
    statuses: dict[int, int] = {}

    for operation in schema.get_all_operations():
        fuzz_operation(operation.ok(), statuses)
    assert sum(statuses.values()) >= COUNT and all(status < 500 for status in statuses)
    assert httpx.get(f"{url}/health").status_code == 200
    assert ask(url, chat()).status_code == 200


def fuzz_operation(operation: Any, statuses: dict[int, int]) -> None:
    @given(case=operation.as_strategy())
    @settings(
        max_examples=COUNT if operation.path == "/v1/chat/completions" else 20,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(HealthCheck),
        phases=[Phase.generate],
    )
    def fuzz(case: Any) -> None:
        response = case.call(timeout=60)
        statuses[response.status_code] = statuses.get(response.status_code, 0) + 1
        assert response.status_code < 500, response.text

    fuzz()


def test_pictures_with_bytes_changed(url):
    draw = random.Random(0)
    statuses = set()
    for form in range(60):
        data = bytearray(noise(form))
        for _ in range(draw.randint(1, 20)):
            data[draw.randrange(len(data))] = draw.randrange(256)
        cut = bytes(data[: draw.randint(1, len(data))]) if form % 2 else bytes(data)
        statuses.add(ask(url, chat("?", data_url(cut), max_tokens=1)).status_code)
    assert statuses <= {200, 400, 413} and 400 in statuses
    assert ask(url, chat()).status_code == 200

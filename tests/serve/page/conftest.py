"""A browser, and servers whose page it shows."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import urlopen

import pytest
from PIL import Image

from igva.checkpoints.tiny import tiny_present
from igva.serve.app import Settings, create_app

from ..conftest import serving

if TYPE_CHECKING:  # the browser fixture says what is missing where selenium is
    from selenium import webdriver

    from .visitor import Page


@pytest.fixture(scope="session")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Iterator[webdriver.Chrome]:
    pytest.importorskip("selenium", reason="the page is tested through selenium: pip install 'igva[dev]'")
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    binary = shutil.which("chromium") or shutil.which("google-chrome")
    service = shutil.which("chromedriver")
    if not binary or not service:
        pytest.skip("the page is tested in Chromium: install chromium and chromedriver (Debian: chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = binary
    profile = tmp_path_factory.mktemp("chromium")
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage", f"user-data-dir={profile}"):
        options.add_argument(f"--{flag}")
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    browser = webdriver.Chrome(options=options, service=Service(service))
    yield browser
    browser.quit()


@pytest.fixture(scope="session")
def tiny_url() -> Iterator[str]:
    """`igva serve` with the embedded model."""
    if not tiny_present():
        pytest.skip("the tiny model is not fetched: igva models fetch tiny")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "igva", "serve", "--port", str(port), "--device", "cpu"]
    process = subprocess.Popen(command, env={**os.environ, "OMP_NUM_THREADS": "1"})
    try:
        _wait_for(f"http://127.0.0.1:{port}/health", process)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(20)


def _wait_for(url: str, process: subprocess.Popen[bytes]) -> None:
    end = time.monotonic() + 180
    while time.monotonic() < end:
        assert process.poll() is None, "igva serve has ended"
        try:
            urlopen(url, timeout=2).close()
            return
        except OSError:
            time.sleep(0.2)
    raise AssertionError("igva serve does not answer")


@pytest.fixture
def through(small: tuple[Any, Any]) -> Iterator[Callable[..., str]]:
    """``through(pass_on)`` → a server's address; ``await pass_on(piece)``: what is sent for a piece of an answer."""
    with ExitStack() as stack:

        def start(pass_on: Callable[[bytes], Awaitable[bytes]]) -> str:
            app = create_app(*small, Settings("small"))

            async def changed(scope: Any, receive: Any, send: Any) -> None:
                async def change(message: Any) -> None:
                    if message.get("body", b"").startswith(b"data:"):
                        message = {**message, "body": await pass_on(message["body"])}
                    await send(message)

                await app(scope, receive, change)

            return stack.enter_context(serving(changed))

        yield start


@pytest.fixture
def locked_url(small: tuple[Any, Any]) -> Iterator[str]:
    """A server with the key "secret" that lets everybody see the page, and leaves it to the page to ask for the key."""
    app = create_app(*small, Settings("small", api_key="secret"))

    async def opened(scope: Any, receive: Any, send: Any) -> None:
        async def unchallenged(message: Any) -> None:
            headers = [each for each in message.get("headers", []) if each[0] != b"www-authenticate"]
            await send({**message, "headers": headers} if "headers" in message else message)

        if scope["type"] == "http" and not scope["path"].startswith(("/v1", "/igva")):
            scope = {**scope, "headers": [*scope["headers"], (b"authorization", b"Bearer secret")]}
        await app(scope, receive, unchallenged)

    with serving(opened) as url:
        yield url


@pytest.fixture
def visit(driver: webdriver.Chrome) -> Iterator[Callable[[str], Page]]:
    """``visit(url)`` → its page, for a visitor who has never been there."""
    from .visitor import Page

    def go(url: str) -> Page:
        page = Page(driver, url)
        page.size(1280)
        page.media(prefers_color_scheme="light", prefers_reduced_motion="reduce")
        page.open()  # storage belongs to an address: something of it must be open
        page.js("localStorage.clear(); sessionStorage.clear()")
        page.complaints(), page.requested()
        page.open()
        return page

    yield go
    driver.get("about:blank")


@pytest.fixture
def page(visit: Callable[[str], Page], tiny_url: str) -> Page:
    return visit(tiny_url)


@pytest.fixture
def large_picture(tmp_path: Path) -> Path:
    """3000 × 1500 pixels: left half red, right half blue."""
    image = Image.new("RGB", (3000, 1500), "red")
    image.paste("blue", (1500, 0, 3000, 1500))
    path = tmp_path / "large.png"
    image.save(path)
    return path

"""What a visitor of the page sees and does, through selenium."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

WAIT = 60  # seconds; two busy cores


class Page:
    """One page in one browser."""

    def __init__(self, driver: webdriver.Chrome, url: str):
        self.driver, self.url = driver, url

    def open(self) -> None:
        self.driver.get(self.url)
        self.until(lambda: len(self.all("#examples button")) == 4)

    def all(self, selector: str) -> list[WebElement]:
        return self.driver.find_elements(By.CSS_SELECTOR, selector)

    def one(self, selector: str) -> WebElement:
        return self.driver.find_element(By.CSS_SELECTOR, selector)

    def shown(self, selector: str) -> bool:
        found = self.all(selector)
        return bool(found) and found[0].is_displayed()

    def text(self, selector: str) -> str:
        return self.one(selector).text

    def js(self, code: str, *values: Any) -> Any:
        return self.driver.execute_script(code, *values)

    def until(self, holds: Callable[[], Any]) -> Any:
        return WebDriverWait(self.driver, WAIT, poll_frequency=0.05).until(lambda _: holds())

    def upload(self, path: Path) -> None:
        self.one("#file").send_keys(str(path))
        self.until(lambda: self.shown("#workspace"))

    def example(self, number: int = 0) -> None:
        self.all("#examples button")[number].click()
        self.until(lambda: self.shown("#workspace"))

    def asker(self, letter: str) -> str:
        """The selector of a question's box."""
        return f".asker:nth-child({'AB'.index(letter) + 1})"

    def type(self, question: str, letter: str = "A") -> None:
        self.one(f"{self.asker(letter)} textarea").send_keys(question, Keys.ENTER)

    def idle(self, letter: str = "A") -> None:
        self.until(lambda: not self.all(f"{self.asker(letter)}.busy"))

    def ask(self, question: str, letter: str = "A") -> str:
        """Ask, wait → the answer."""
        self.type(question, letter)
        self.until(lambda: self.text(f"{self.asker(letter)} .asked") == question)
        self.idle(letter)
        return self.text(f"{self.asker(letter)} .answer")

    def shares(self, letter: str = "A") -> dict[str, float]:
        """The bars: name of the group → percentage."""
        rows = self.all(f"{self.asker(letter)} .bar")
        find = [
            (row.find_element(By.CLASS_NAME, "bar-name"), row.find_element(By.CLASS_NAME, "bar-value")) for row in rows
        ]
        return {name.text: float(value.text.removesuffix("%")) for name, value in find}

    def error(self, letter: str = "A") -> str:
        selector = f"{self.asker(letter)} > .error"
        self.until(lambda: self.shown(selector))
        return self.text(selector)

    def complaints(self) -> list[str]:
        """What the console has said since the last call."""
        return [entry["message"] for entry in self.driver.get_log("browser")]

    def requested(self) -> set[str]:
        """The addresses that the browser has asked for since the last call, up to their host."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        sent = [event["params"] for event in events if event["method"] == "Network.requestWillBeSent"]
        found = [each["request"]["url"] for each in sent if each["documentURL"].startswith("http")]
        return {"/".join(url.split("/")[:3]) for url in found if not url.startswith(("data:", "blob:"))}

    def media(self, **features: str) -> None:
        """What the visitor's system prefers: ``media(prefers_color_scheme="dark")``."""
        named = [{"name": name.replace("_", "-"), "value": value} for name, value in features.items()]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": named})

    def size(self, width: int, height: int = 800) -> None:
        measures = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 500}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", measures)

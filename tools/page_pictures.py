"""Take the two pictures of docs/page.md in a browser, from a server that is running.

    .venv/bin/igva serve                       # in another terminal, until it says that it listens
    .venv/bin/python tools/page_pictures.py [--url http://127.0.0.1:8000]

Needs Chromium with its driver (Debian: ``chromium`` and ``chromium-driver``), as the tests of the page do.
"""

import argparse
import shutil
import sys
from pathlib import Path

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))
from tests.serve.page.visitor import Page  # noqa: E402

STREET = 1  # the number of the example
THERE, LARGER = "Is there a helicopter in the picture?", "Which is larger, the bus or the bicycle?"
WIDTH, LAYER = 1280, 5


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8000")
    parser.add_argument("--out", type=Path, default=ROOT / "docs")
    args = parser.parse_args()
    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium") or shutil.which("google-chrome")
    for flag in ("headless=new", "no-sandbox", "disable-dev-shm-usage"):
        options.add_argument(f"--{flag}")
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        take(Page(driver, args.url), args.out)
    finally:
        driver.quit()


def take(page: Page, out: Path) -> None:
    page.media(prefers_color_scheme="light", prefers_reduced_motion="reduce")
    page.size(WIDTH)
    page.open()
    page.example(STREET)
    print(THERE, page.ask(THERE))
    page.one("#maps-switch").click()
    page.until(lambda: len(page.all("#strip input")) >= LAYER)
    page.js("arguments[0].click()", page.all("#strip input")[LAYER - 1])
    _save(page, out / "page.png")
    page.one("#maps-switch").click()
    page.one("#compare").click()
    print(LARGER, page.ask(LARGER, "B"))
    page.until(lambda: page.shown("#difference"))
    _save(page, out / "page-compare.png")


def _save(page: Page, path: Path) -> None:
    """The whole page, however long it is."""
    page.size(WIDTH, page.js("return document.documentElement.scrollHeight"))
    page.js("window.scrollTo(0, 0); document.activeElement.blur()")
    page.driver.save_screenshot(str(path))
    page.size(WIDTH)


if __name__ == "__main__":
    main()

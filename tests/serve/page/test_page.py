"""The page in a real browser, with the real tiny model: what it shows and does."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path

import pytest
from PIL import Image

from igva.serve.app import Settings, create_app
from igva.serve.limits import Limits

from ..conftest import serving, stirred

LAYERS = [  # tiny's, each a group
    *(f"efficientnet.{layer}" for layer in ("3", "5", "6", "head", "words")),
    *(f"drawings.{layer}" for layer in ("5", "7", "words")),
]
WORD, BACKGROUND = "Read the word in the image.", "What color is the background?"

# A file as it comes from outside, dropped or pasted.
HAND_OVER = """
const [kind, text, type] = arguments;
const bytes = Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));
const transfer = new DataTransfer();
transfer.items.add(new File([bytes], "file", { type }));
document.dispatchEvent(kind === "drop"
  ? new DragEvent("drop", { dataTransfer: transfer, bubbles: true, cancelable: true })
  : new ClipboardEvent("paste", { clipboardData: transfer, bubbles: true, cancelable: true }));
"""
DOT = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg=="


def test_a_picture_a_question_an_answer(page, large_picture):
    assert page.text("#model") == "Model tiny"
    page.upload(large_picture)
    sent = "const picture = document.getElementById('picture'); return [picture.naturalWidth, picture.naturalHeight]"
    page.until(lambda: page.js(sent) == [1024, 512])
    assert page.ask(BACKGROUND)
    shares = page.shares()
    assert list(shares) == LAYERS
    assert sum(shares.values()) == pytest.approx(100, abs=0.3)
    assert page.complaints() == []
    assert page.requested() == {page.url}


def test_the_bars_follow_the_question(page):
    page.example()
    assert page.ask(WORD)
    word = page.shares()
    assert page.ask(BACKGROUND)
    background = page.shares()
    assert word != background
    fills = page.js("return [...document.querySelectorAll('.asker .bar-fill')].map((each) => each.clientWidth)")[
        : len(LAYERS)
    ]
    scale = sum(fills) / 100
    assert fills == pytest.approx([share * scale for share in background.values()], abs=1.5)


def test_the_answer_is_written_as_it_comes(page):
    """The page sees the answer in more than one piece."""
    page.example(2)
    page.js("""
      window.seen = [];
      new MutationObserver(() => window.seen.push(document.querySelector(".answer").textContent)).observe(
        document.querySelector(".answer"), { childList: true });
    """)
    answer = page.ask("Describe this image in detail.")
    seen = page.js("return window.seen")
    assert seen[-1] == answer
    assert any(piece != answer and answer.startswith(piece) for piece in seen)


def test_two_questions_side_by_side(page):
    page.example()
    assert not page.shown("#compare")
    first = page.ask(WORD)
    page.one("#compare").click()
    assert page.ask(BACKGROUND, "B")
    assert page.text(f"{page.asker('A')} .answer") == first
    left, right = page.one(page.asker("A")).rect, page.one(page.asker("B")).rect
    assert left["y"] == right["y"] and left["x"] + left["width"] <= right["x"]

    a, b = page.shares("A"), page.shares("B")
    fills = page.js("return [...document.querySelectorAll('.bar-fill')].map((each) => each.clientWidth)")
    shares = [*a.values(), *b.values()]
    assert fills == pytest.approx([share * sum(fills) / 200 for share in shares], abs=1.5)  # all on one scale
    rows = [row.text.split("\n") for row in page.all("#difference-rows li")]
    changes = {name: float(value.replace("−", "-")) for name, value in rows}
    assert changes == pytest.approx({name: b[name] - a[name] for name in a}, abs=0.16)
    words = page.text("#difference-words")
    layer = r"(efficientnet|drawings)\.\w+"
    assert re.fullmatch(rf"B takes more from {layer} \(\+.* points?\) and less from {layer} \(−.* points?\)\.", words)

    page.one(".end").click()
    assert not page.shown("#difference") and not page.shown(page.asker("B"))
    assert page.shown("#compare")


def test_one_scale_for_both(visit, through):
    """A mixture that takes nearly all from one group makes the other chart's bars shorter."""
    asked = 0

    async def lopsided(piece):
        nonlocal asked
        if b'"igva"' not in piece:
            return piece
        chunk = json.loads(piece.removeprefix(b"data: "))
        asked += "content" in chunk["choices"][0]["delta"]
        chunk["igva"]["layer_weights"] = [0.4, 0.35, 0.25] if asked == 1 else [0.9, 0.06, 0.04]
        chunk["igva"]["layer_groups"] = [[1, 2], [3, 5], [6]]
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    page = visit(through(lopsided))
    page.example()
    page.ask("What?")
    assert page.shares() == {"Layers 1–2": 40, "Layers 3, 5": 35, "Layer 6": 25}
    page.one("#compare").click()
    page.ask("And this?", "B")
    fills = page.js("return [...document.querySelectorAll('.bar-fill')].map((each) => each.clientWidth)")
    whole = page.js("return document.querySelector('.bar-track').clientWidth") / 0.9
    assert fills == pytest.approx([share * whole for share in (0.4, 0.35, 0.25, 0.9, 0.06, 0.04)], abs=1.5)


def test_named_layers(visit, through):
    names = ["DINOv2.2-4", "DINOv2.5-12 + efficientnet.3-5,head", "efficientnet.words"]
    asked = 0

    async def named(piece):
        nonlocal asked
        if b'"igva"' not in piece:
            return piece
        chunk = json.loads(piece.removeprefix(b"data: "))
        asked += "content" in chunk["choices"][0]["delta"]
        weights = [0.4, 0.35, 0.25] if asked == 1 else [0.3, 0.35, 0.35]
        chunk["igva"] = {"layer_groups": [[1, 2, 3], [4, 5], [6]], "layer_names": names, "layer_weights": weights}
        return b"data: " + json.dumps(chunk).encode() + b"\n\n"

    page = visit(through(named))
    page.example()
    page.ask("What?")
    assert page.shares() == dict(zip(names, (40, 35, 25), strict=True))
    titles = [name.get_attribute("title") for name in page.all(".bar-name")]
    assert titles[0] == "Layers 1–3: show what they look at" and titles[2].startswith("Layer 6: ")
    page.one("#compare").click()
    page.ask("And this?", "B")
    assert page.text("#difference-words") == (
        "B takes more from efficientnet.words (+10.0 points) and less from DINOv2.2-4 (−10.0 points)."
    )
    assert [row.text.split("\n")[0] for row in page.all("#difference-rows li")] == names
    assert page.one(".columns").get_attribute("aria-label") == (
        "DINOv2.2-4 30.0%, DINOv2.5-12 + efficientnet.3-5,head 35.0%, efficientnet.words 35.0%"
    )
    spills = """return [...document.querySelectorAll(".bar-name, .difference-name")].filter(
      (each) => each.scrollWidth > each.clientWidth + 1).map((each) => each.textContent)"""
    for width in (1280, 360):
        page.size(width)
        assert page.js("return document.documentElement.scrollWidth") <= width
        assert page.js(spills) == []
    assert page.complaints() == []


def test_a_model_that_mixes_nothing(visit):
    with serving(create_app(*stirred(fusion="single"), Settings("small"))) as url:
        page = visit(url)
        page.example()
        page.ask("What?")
        assert page.text(".mixture .fine") == "This model gives no layer weights."
        assert not page.all(".bar")
        page.one("#compare").click()
        page.ask("And this?", "B")
        assert not page.shown("#difference")
        page.one("#maps-switch").click()
        page.until(lambda: page.shown("#maps"))
        assert page.all(".thumb") and not page.all(".bracket")
        assert page.complaints() == []


def test_earlier_questions(page):
    page.example()
    first = page.ask(WORD)
    assert not page.shown("#history")
    second = page.ask(BACKGROUND)
    rows = [row.text for row in page.all("#history-rows .entry")]
    assert rows == [f"{BACKGROUND}\n{second}", f"{WORD}\n{first}"]
    shares = page.shares()
    page.all("#history-rows .entry")[1].click()
    focused = page.driver.switch_to.active_element
    assert focused == page.all("#history-rows .entry")[1]  # the list is new, the focus is where it was
    assert page.text(".asker .asked") == WORD and page.text(".asker .answer") == first
    assert page.shares() != shares
    page.one("#history-rows li:first-child .quiet").click()
    assert page.shares("B") == shares
    assert page.shown("#difference")

    page.one("#another").click()  # each picture has its own
    page.example(1)
    assert not page.shown("#history") and not page.shown("#difference")
    page.one("#another").click()
    page.example(0)
    assert len(page.all("#history-rows li")) == 2


def test_what_each_layer_looks_at(page):
    page.example(3)  # wider than high
    page.ask("What is in the picture?")
    page.one("#maps-switch").click()
    page.until(lambda: page.shown("#maps"))
    assert len(page.all(".thumb")) == len(page.all(".block")) == len(LAYERS)
    assert page.text("#stage-name") == "Layer 1 (efficientnet.3)"
    assert page.text("#legend-note").startswith("Activity (how far a patch lies from the mean of all); each layer")
    shares = [line.text for line in page.all(".bracket")]
    assert shares == [f"{share:.1f}%" for share in page.shares().values()]

    drawn = "return document.getElementById('glow').toDataURL()"
    first = page.js(drawn)
    page.all(".bar-name")[2].click()
    assert page.text("#stage-name") == "Layer 3 (efficientnet.6)"
    assert page.js(drawn) != first
    assert page.one(".bar.marked .bar-name").text == LAYERS[2]
    page.all(".thumb")[4].click()
    assert page.one(".bar.marked .bar-name").text == LAYERS[4]
    assert page.one(".dot.marked").get_attribute("data-layer") == "5"
    stage, glow = page.one("#stage").rect, page.one("#glow").rect
    assert stage == glow and stage["width"] == pytest.approx(stage["height"])  # over the padded square

    page.one("#maps-switch").click()
    assert not page.shown("#maps") and not page.all(".bar.marked")
    assert page.complaints() == []


@pytest.mark.parametrize("kind", ["drop", "paste"])
def test_a_picture_from_outside(page, kind):
    page.js(HAND_OVER, kind, DOT, "image/png")
    page.until(lambda: page.shown("#workspace"))
    assert page.ask(BACKGROUND)


def test_what_is_no_picture_is_said_to_be_none(page, tmp_path):
    page.js(HAND_OVER, "drop", DOT, "text/plain")
    assert page.text("#trouble") == "That was not a picture file."
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"not a picture")
    page.one("#file").send_keys(str(broken))
    page.until(lambda: "PNG, JPEG and WebP" in page.text("#trouble"))
    assert not page.shown("#workspace")
    page.example()
    assert not page.shown("#trouble")


def test_pictures_keep_their_orientation(page, tmp_path):
    """Cameras store pictures lying down, with a note how to turn them."""
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / "turned.jpg"
    Image.new("RGB", (2000, 1000), "green").save(path, exif=exif)
    page.upload(path)
    size = "const picture = document.getElementById('picture'); return [picture.naturalWidth, picture.naturalHeight]"
    page.until(lambda: page.js(size) == [512, 1024])


def test_stop(visit, through):
    """What was said until then stays."""

    async def slowly(piece):
        await asyncio.sleep(0.3)
        return piece

    page = visit(through(slowly))
    page.example()
    page.type("What?")
    button = f"{page.asker('A')} .ask button"
    page.until(lambda: page.text(button) == "Stop" and page.text(".answer"))
    assert len(page.shares()) > 1  # the mixture comes before the answer
    page.one(button).click()
    page.idle()
    assert page.text(".note") == "Stopped."
    said = page.text(".answer")
    assert said and page.text(button) == "Ask"
    page.type("And now?")
    page.until(lambda: page.text(".asked") == "And now?" and page.text(".answer"))
    page.type("Or now?")  # a new question takes the place of a running one
    page.until(lambda: page.text(".asked") == "Or now?" and page.text(".answer"))
    page.one(button).click()
    page.until(lambda: page.text(".note") == "Stopped.")
    assert len(page.all("#history-rows li")) == 2


@pytest.mark.parametrize(
    "instead, told",
    [
        (b'data: {"error": {"message": "no memory left"}}\n\n', "no memory left"),
        (b"", "The connection ended before the answer did. Ask again."),
    ],
)
def test_an_answer_that_breaks_off(visit, through, instead, told):
    async def break_off(piece):
        return instead if b"[DONE]" in piece or b'"role"' not in piece else piece

    page = visit(through(break_off))
    page.example()
    page.type("What?")
    assert page.error() == told
    assert not page.shown(".result") and not page.shown("#compare")


def test_a_server_that_is_gone(visit, serve):
    page = visit(serve(Settings("small")))
    page.example()
    page.driver.execute_cdp_cmd("Network.enable", {})
    gone = {"offline": True, "latency": 0, "downloadThroughput": -1, "uploadThroughput": -1}
    page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", gone)
    try:
        page.type("What?")
        assert page.error() == "The server does not answer. Is it still running?"
        assert page.one(".asker textarea").get_attribute("value") == "What?"  # nothing typed is lost
        assert not page.shown(".result")
    finally:
        page.driver.execute_cdp_cmd("Network.emulateNetworkConditions", {**gone, "offline": False})
    page.one(".ask button").click()
    page.until(lambda: page.text(".asker .answer"))


def test_the_servers_own_words(visit, serve):
    page = visit(serve(Settings("small", limits=Limits(image_pixels=100))))
    page.example()
    page.type("What?")
    assert "pixels" in page.error()


def test_the_key(visit, locked_url):
    page = visit(locked_url)
    page.until(lambda: page.shown("#key"))
    page.one("#key-cancel").click()
    page.until(lambda: "asks for an API key" in page.text("#trouble"))
    page.example()
    page.type("What?")
    page.until(lambda: page.shown("#key"))
    page.one("#key-input").send_keys("wrong\n")
    page.until(lambda: page.shown("#key-error"))
    page.one("#key-input").send_keys("secret\n")
    page.until(lambda: page.text(".asker .answer"))
    assert not page.shown("#key")
    page.ask("Again?")  # not asked for twice
    assert page.js("return sessionStorage.length + ' ' + localStorage.length") == "1 0"


def test_a_key_given_to_the_browser(visit, serve):
    """The browser asked for it before it showed the page: the page need not ask again."""
    url = serve(Settings("small", api_key="secret"))
    page = visit(url.replace("http://", "http://anyone:secret@"))
    page.until(lambda: page.text("#model") == "Model small")
    page.example()
    assert page.ask("What?")
    assert not page.shown("#key")


def test_examples_are_small():
    folder = Path(__file__).parents[3] / "src/igva/serve/page/examples"
    for file in folder.iterdir():
        assert file.stat().st_size <= 60_000
        Image.open(file).verify()

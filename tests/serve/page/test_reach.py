"""Who can use the page: by keyboard alone, on a phone, in the dark, with weak eyes, without motion."""

from __future__ import annotations

import pytest

pytest.importorskip("selenium", reason="the page is tested through selenium: pip install 'igva[dev]'")
from selenium.webdriver.common.action_chains import ActionChains
from selenium.webdriver.common.keys import Keys

# Every piece of text that is seen: its words, and the contrast with what is painted below it.
CONTRASTS = """
const pen = Object.assign(document.createElement("canvas"), { width: 1, height: 1 }).getContext("2d");
const paint = (colour) => {
  pen.fillStyle = colour;
  pen.fillRect(0, 0, 1, 1);
  return pen.getImageData(0, 0, 1, 1).data;
};
const light = (data) => {
  const [r, g, b] = [...data].slice(0, 3).map((part) => {
    const value = part / 255;
    return value <= 0.04045 ? value / 12.92 : ((value + 0.055) / 1.055) ** 2.4;
  });
  return 0.2126 * r + 0.7152 * g + 0.0722 * b;
};
const found = [];
for (const element of document.querySelectorAll("body *")) {
  const own = [...element.childNodes].filter((node) => node.nodeType === 3 && node.data.trim());
  const words = own.map((node) => node.data.trim()).join(" ") || element.placeholder;
  if (!words || !element.checkVisibility() || element.matches(".visually-hidden")) continue;
  const line = [];
  for (let each = element; each; each = each.parentElement) line.unshift(getComputedStyle(each).backgroundColor);
  pen.clearRect(0, 0, 1, 1);
  line.forEach(paint);
  const below = light(pen.getImageData(0, 0, 1, 1).data);
  const style = getComputedStyle(element, element.placeholder ? "::placeholder" : null);
  const above = light(paint(style.color));
  found.push([words, (Math.max(above, below) + 0.05) / (Math.min(above, below) + 0.05)]);
}
return found;
"""

FOCUSED = """
const element = document.activeElement;
const drawn = element.matches("#file, .thumb input") ? element.nextElementSibling : element;
const box = drawn.getBoundingClientRect();
return {
  id: element.id || element.className || element.textContent,
  body: element === document.body,
  ring: getComputedStyle(drawn).outlineStyle !== "none" && parseFloat(getComputedStyle(drawn).outlineWidth) > 0,
  seen: box.width > 0 && box.height > 0,
  name: element.getAttribute("aria-label") || element.labels?.[0]?.textContent || element.textContent
    || element.querySelector("img")?.alt || "",
};
"""


def press(page, *keys):
    ActionChains(page.driver).send_keys(*keys).perform()


def tab_to(page, wanted: str):
    """Press Tab until an element is focused."""
    for _ in range(60):
        if page.js("return document.activeElement.matches(arguments[0])", wanted):
            return
        press(page, Keys.TAB)
    raise AssertionError(f"Tab never reaches {wanted}")


def compare_with_maps(page):
    """The page with as much on it as it can have."""
    page.example()
    page.ask("Read the word in the image.")
    page.one("#maps-switch").click()
    page.until(lambda: page.shown("#maps"))
    page.one("#compare").click()
    page.ask("What color is the background?", "B")
    page.until(lambda: page.shown("#difference"))


def test_by_keyboard_alone(page):
    tab_to(page, "#examples button")
    press(page, Keys.ENTER)
    page.until(lambda: page.shown("#workspace"))
    press(page, "Read the word in the image.", Keys.ENTER)  # the question has the focus already
    page.until(lambda: page.text(".answer"))
    page.idle()
    tab_to(page, ".bar-name")
    press(page, Keys.ENTER)
    page.until(lambda: page.text("#stage-name") == "Layer 1 (efficientnet.3)")
    page.driver.switch_to.active_element.send_keys(Keys.SHIFT)
    page.js("document.getElementById('maps-switch').focus()")
    tab_to(page, ".thumb input")
    press(page, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_RIGHT)
    assert page.text("#stage-name") == "Layer 4 (efficientnet.head)"
    tab_to(page, "#compare")
    press(page, Keys.ENTER)
    press(page, "What color is the background?", Keys.ENTER)
    page.until(lambda: page.shown("#difference"))
    page.idle("B")
    tab_to(page, ".end")
    press(page, Keys.SPACE)
    assert not page.shown("#difference")
    assert page.js("return document.activeElement !== document.body")  # the focus is not lost with the button


def test_no_trap_and_every_focus_is_seen(page):
    compare_with_maps(page)
    page.js("document.getElementById('theme').focus()")  # the first
    stops = [page.js(FOCUSED)]
    for _ in range(80):
        press(page, Keys.TAB)
        stop = page.js(FOCUSED)
        if stop["body"] or stop["id"] == "theme":  # beyond the last, or from there to the first
            break
        assert stop["ring"] and stop["seen"], stop
        assert stop["name"].strip(), stop
        stops.append(stop)
    else:
        raise AssertionError(f"Tab goes round in {[stop['id'] for stop in stops][-5:]}")
    assert {"theme", "another", "maps-switch", "quiet end"} <= {stop["id"] for stop in stops}


def test_shift_enter_makes_a_line(page):
    page.example()
    press(page, "one")
    ActionChains(page.driver).key_down(Keys.SHIFT).send_keys(Keys.ENTER).key_up(Keys.SHIFT).perform()
    press(page, "two")
    assert page.one(".asker textarea").get_attribute("value") == "one\ntwo"
    assert not page.shown(".result")


def test_what_is_read_out(page):
    page.example()
    answer = page.one(".answer")
    assert answer.get_attribute("aria-live") == "polite"
    page.ask("What color is the background?")
    assert answer.get_attribute("aria-busy") == "false"
    assert all(image.get_attribute("alt") is not None for image in page.all("img"))
    assert page.one("html").get_attribute("lang") == "en"


def test_a_phone(page):
    page.size(360, 740)
    page.open()
    wide = "return document.documentElement.scrollWidth - document.documentElement.clientWidth"
    assert page.js(wide) == 0
    compare_with_maps(page)
    long = "donaudampfschifffahrtsgesellschaft" * 4
    page.ask(long)
    assert page.js(wide) == 0
    for button in page.all("button"):
        if button.is_displayed():
            assert button.rect["height"] >= 24, button.text  # WCAG 2.2, target size
            assert button.rect["x"] >= 0 and button.rect["x"] + button.rect["width"] <= 360, button.text


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_contrast(page, scheme):
    page.media(prefers_color_scheme=scheme, prefers_reduced_motion="reduce")
    weak = [pair for pair in page.js(CONTRASTS) if pair[1] < 4.5]
    assert not weak
    compare_with_maps(page)
    found = page.js(CONTRASTS)
    assert len(found) > 40
    assert not [pair for pair in found if pair[1] < 4.5]


def test_dark(page):
    ground = "return getComputedStyle(document.body).backgroundColor"
    white, button = page.js(ground), page.one("#theme")
    assert white == "rgb(255, 255, 255)" and button.text == "Dark"
    page.media(prefers_color_scheme="dark")
    page.until(lambda: button.text == "Light")
    dark = page.js(ground)
    assert dark != white
    button.click()
    assert page.js(ground) == white and button.text == "Dark"
    page.open()  # the choice is kept
    assert page.js(ground) == white
    page.one("#theme").click()
    assert page.js(ground) == dark


def test_reduced_motion(page):
    moving = "return document.getAnimations().length"
    page.example()
    page.ask("Read the word in the image.")
    page.type("What color is the background?")
    page.until(lambda: page.text(".asker .asked") == "What color is the background?" and page.text(".answer"))
    assert page.js(moving) == 0
    page.media(prefers_reduced_motion="no-preference")
    page.js("document.querySelector('.bar').style.setProperty('--share', 0.01)")
    page.until(lambda: page.js(moving) > 0)

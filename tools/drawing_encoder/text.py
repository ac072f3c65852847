"""Lines of text, and which letter stands where."""

import random

import numpy as np
import torch
from PIL import Image, ImageDraw

from igva.probe import pack
from igva.probe.task_charts import WORDS

LETTERS = " abcdefghijklmnopqrstuvwxyz0123456789"  # the first: none
HEIGHT, WIDTH = 40, 224
COUNT = 8000


class Lines:
    """``COUNT`` lines: their ink ``(n, 1, HEIGHT, WIDTH)``, uint8, and the number of the letter at each pixel.

    ``words`` are the numbers of what is written among the classes, -100 for what is none of them; ``spans`` the
    share of the width that is written on.
    """

    def __init__(self, number: dict[str, int], device: torch.device):
        rng = random.Random(5)
        others = [word for word in number if word.replace(" ", "").isalpha() and len(word) <= 12]
        inks, letters, words, spans = [], [], [], []
        for _ in range(COUNT):
            said = written(rng, others)
            shown = rng.choice((said, said, said.upper(), said.capitalize()))
            ink, spelt = render(rng, shown)
            inks.append(ink)
            letters.append(spelt)
            words.append(number[said] if said in WORDS or (said.isdigit() and said in number) else -100)
            spans.append(np.flatnonzero(ink.max(axis=0))[-1] / WIDTH if ink.any() else 1.0)
        self.inks = torch.from_numpy(np.stack(inks))[:, None].to(device)
        self.letters = torch.from_numpy(np.stack(letters))[:, None].to(device)
        self.words = torch.tensor(words, device=device)
        self.spans = torch.tensor(spans, device=device, dtype=torch.float32)


def written(rng: random.Random, others: list[str]) -> str:
    """A word of the suite, a number, another word, or letters at random."""
    chance = rng.random()
    if chance < 0.35:
        return rng.choice(WORDS)
    if chance < 0.6:
        return str(rng.randint(0, 99) if rng.random() < 0.7 else rng.randint(0, 9999))
    if chance < 0.9:
        return rng.choice(others)
    return "".join(rng.choice(LETTERS[1:]) for _ in range(rng.randint(2, 8)))


def render(rng: random.Random, shown: str) -> tuple[np.ndarray, np.ndarray]:
    """One line in a training font, as high as fits: its ink, and the letters' numbers."""
    path = rng.choice(pack.font_files("train-"))
    size = 34
    while (font := pack.font(path, size)).getlength(shown) > WIDTH - 6:
        size -= 2
    ink = Image.new("L", (WIDTH, HEIGHT))
    spelt = Image.new("L", (WIDTH, HEIGHT))
    ImageDraw.Draw(ink).text((2, HEIGHT / 2), shown, 255, font=font, anchor="lm")
    boxes = ImageDraw.Draw(spelt)
    for place, letter in enumerate(shown.lower()):
        if letter in LETTERS[1:]:
            left = 2 + font.getlength(shown[:place])
            right = 2 + font.getlength(shown[: place + 1])
            boxes.rectangle((left, HEIGHT / 2 - size / 2, right - 1, HEIGHT / 2 + size / 2), LETTERS.index(letter))
    return np.array(ink), np.array(spelt)

"""A small world whose truth is known: colours stand in one layer, shapes in another."""

from __future__ import annotations

import itertools

import pytest
import torch

from igva.data.questions import Question as Item
from igva.model.fusion_base import FusionDims
from igva.model.vision_layers import VisionLayers
from igva.study.readout import AnswerSheet, Material

LAYERS, WIDTH, PATCHES, TEXT = 4, 16, 4, 12
COLORS, SHAPES = ("red", "green", "blue", "white"), ("circle", "square", "star", "heart")


class PlantedLayers:
    """Layer 1 holds the colour, layer 3 the shape, the others noise: every picture is named ``color-shape-number``."""

    def __init__(self):
        generator = torch.Generator().manual_seed(0)
        self.codes = {word: torch.randn(WIDTH, generator=generator) for word in (*COLORS, *SHAPES)}

    def __call__(self, images, taps):
        states = []
        for name in images:
            color, shape, number = str(name).split("-")
            noise = torch.Generator().manual_seed(int(number))
            state = torch.randn(LAYERS + 1, PATCHES, WIDTH, generator=noise) * 0.3
            state[1] += self.codes[color]
            state[3] += self.codes[shape]
            states.append(state)
        stack = torch.stack(states)  # (n, L + 1, N, D)
        patches = torch.stack([stack[:, list(tap)].mean(dim=1) for tap in taps], dim=1)
        return VisionLayers(patches, patches.mean(dim=2))


class PlantedSentences:
    """One random word state and vector per sentence."""

    width = TEXT

    def vectors(self, sentences):
        seeds = [torch.Generator().manual_seed(sum(s.encode()) * 7 + len(s)) for s in sentences]
        return torch.nn.functional.normalize(torch.stack([torch.randn(TEXT, generator=s) for s in seeds]), dim=-1)

    def states(self, sentences):
        return self.vectors(sentences)[:, None], torch.zeros(len(sentences), 1, dtype=torch.bool)


def planted_items(first, copies):
    items = []
    for number, (color, shape) in enumerate(itertools.product(COLORS, SHAPES)):
        for copy in range(copies):
            image = f"{color}-{shape}-{first + number * copies + copy}"
            items.append(Item(f"{image}-c", image, "What color is it?", color, COLORS, "color", "Fine-Grained"))
            items.append(Item(f"{image}-s", image, "What shape is it?", shape, SHAPES, "shape", "General"))
    return items


@pytest.fixture
def dims():
    return FusionDims(num_layers=LAYERS, vision_dim=WIDTH, num_patches=PATCHES, instruction_dim=TEXT)


@pytest.fixture
def material():
    train, test = planted_items(0, 12), planted_items(10_000, 4)
    return Material(PlantedLayers(), PlantedSentences(), train, test, AnswerSheet(train, test))

"""The tower of the embedded default: what it is made of, and what its words say of a photograph."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers.models.auto.image_processing_auto import AutoImageProcessor  # by this name: no torchvision asked

from igva.eight_bits import to_int8
from igva.imagenet.classes import classes
from igva.model.vision_layers import run_tower
from igva.part_sources import load_vision_tower
from igva.parts import tower as tower_file
from igva.parts.cache import parts_present
from igva.parts.drawings import drawing_classes, drawing_state
from igva.parts.shipped import TOWER
from igva.parts.tower import CONSTANTS, WORDS, vision_path, word_vectors
from igva.probe import pack

needs_parts = pytest.mark.skipif(not parts_present(), reason="the parts are not fetched: igva models fetch tiny")
CAT = Path(__file__).parents[2] / "examples/chelsea.png"


def test_the_matrices_that_ship_are_orthonormal() -> None:
    matrices = load_file(TOWER)
    assert {name: tuple(matrix.shape) for name, matrix in matrices.items()} == {
        "head": (384, 1280),
        "words": (376, 384),
    }
    for rows in matrices.values():
        torch.testing.assert_close(rows @ rows.T, torch.eye(len(rows)), atol=1e-4, rtol=0)


def test_word_vectors_have_no_mean_and_some_constant_channels() -> None:
    sentences = torch.nn.functional.normalize(torch.randn(200, 24) + 1, dim=1)
    directions = torch.linalg.qr(torch.randn(24, 24 - CONSTANTS)).Q.T
    vectors = word_vectors(sentences, directions)
    assert vectors.shape == (200, 24)
    free, constant = vectors[:, :-CONSTANTS], vectors[:, -CONSTANTS:]
    torch.testing.assert_close(free.mean(dim=0), torch.zeros(24 - CONSTANTS), atol=1e-5, rtol=0)
    assert torch.equal(constant, constant[:1].expand_as(constant)) and abs(float(constant[0].sum())) < 1e-6
    # Likeness is kept but for the directions left out.
    kept = torch.corrcoef(torch.stack([free[0] @ free.T, (sentences - sentences.mean(0))[0] @ sentences.T]))
    assert kept[0, 1] > 0.5


def test_another_class_list_is_another_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    before = vision_path()
    assert before == vision_path() and before.name.startswith("vision-")
    monkeypatch.setattr(tower_file, "classes", lambda: classes()[:-1])
    assert vision_path() != before


@pytest.fixture(scope="module")
def tower() -> Any:
    return load_vision_tower(tower_file.vision_folder())


@needs_parts
def test_what_it_is_made_of(tower: Any) -> None:
    names = tower.config.layer_names
    assert names == [
        *("efficientnet.3", "efficientnet.5", "efficientnet.6", "efficientnet.head", "efficientnet.words"),
        *("drawings.5", "drawings.7", "drawings.words"),
    ]
    assert (tower.config.hidden_size, tower.config.grid) == (384, 8)
    number, vectors = tower.words_layer()
    assert names[number - 1] == "efficientnet.words" and vectors.shape == (1000, 384)
    processor = AutoImageProcessor.from_pretrained(tower_file.vision_folder())
    pixels = processor(Image.new("RGB", (9, 9), (255, 0, 51)), return_tensors="pt")["pixel_values"]
    assert pixels.shape == (1, 3, 256, 256)
    torch.testing.assert_close(pixels[0, :, 7, 7], torch.tensor([1.0, 0.0, 0.2]), atol=1e-3, rtol=0)


@needs_parts
@torch.no_grad()
def test_the_words_of_a_cat_are_a_cats(tower: Any) -> None:
    """Of the 1,000 classes' vectors, a cat's is nearest to what the layer says on the whole."""
    processor = AutoImageProcessor.from_pretrained(tower_file.vision_folder())
    picture = Image.open(CAT).convert("RGB").resize((256, 256))
    pixels = processor(picture, return_tensors="pt")["pixel_values"]
    number, vectors = tower.words_layer()
    said = descriptor(tower, pixels, number)
    likeness = torch.nn.functional.cosine_similarity(said, vectors, dim=1)
    assert classes()[int(likeness.argmax())].name == "cat"
    assert tower.parts[0].layers[-1] == WORDS


@needs_parts
@torch.no_grad()
def test_the_encoder_tuned_on_drawings_names_drawings_of_sets_it_never_saw(tower: Any) -> None:
    """Of the pack's names, by what its words layer says on the whole; chance is one in 311."""
    encoder, vectors = tower.encoders[1], tower.encoders[1].words.vectors
    assert len(vectors) == len(drawing_classes()) == tower.parts[1].config["num_classes"]
    asked = sorted(set(pack.nouns()) & set(drawing_classes()))
    rows = vectors[[drawing_classes().index(name) for name in asked]]
    right = []
    for name in asked[::8]:
        for drawing in pack.held_out_drawings("streamline-ultimate-color", name):
            picture = Image.new("RGBA", (256, 256), "white")
            picture.alpha_composite(drawing.image.resize((200, 200)), (28, 28))
            pixels = torch.tensor(list(picture.convert("RGB").tobytes())).view(1, 256, 256, 3).movedim(-1, 1) / 255
            said = descriptor(tower, pixels, len(tower.config.layer_names))
            likeness = torch.nn.functional.cosine_similarity(said, rows, dim=1)
            right.append(asked[int(likeness.argmax())] == name)
    assert encoder.words.classifier.out_features == len(vectors) and len(right) >= 8
    assert sum(right) / len(right) > 0.4


def descriptor(tower: Any, pixels: torch.Tensor, layer: int) -> torch.Tensor:
    """The mean of a layer over a picture: ``(D,)``."""
    layers = len(tower.config.layer_names)
    means = run_tower(tower, pixels, [(layer,)], num_layers=layers, num_patches=64, layers=[layer])
    return means.descriptors[0, 0]


def test_the_difference_that_ships_is_added_to_the_published_weights(tmp_path: Path) -> None:
    published = {
        "stem.conv.weight": torch.randn(4, 3, 3, 3),
        "stem.norm.weight": torch.ones(4),
        "count": torch.tensor(3),
    }
    moved = {"stem.conv.weight": torch.full((4, 27), 0.5), "stem.norm.weight": torch.full((4,), 0.25)}
    classifier = {"words.classifier.weight": torch.ones(2, 4), "words.classifier.bias": torch.zeros(2)}
    save_file(to_int8(moved | classifier), tmp_path / "file.safetensors")
    state = drawing_state(published, tmp_path / "file.safetensors")
    torch.testing.assert_close(state["stem.conv.weight"], published["stem.conv.weight"] + 0.5, atol=4e-3, rtol=0)
    torch.testing.assert_close(state["stem.norm.weight"], torch.full((4,), 1.25))
    assert state["count"] == 3 and state["words.classifier.weight"].dtype == torch.float32

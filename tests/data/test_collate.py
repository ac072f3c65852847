"""Batches: padding, skipped samples, bad pictures, and the dummy picture of distributed runs."""

from __future__ import annotations

import pytest
import torch

from igva.data.collate import Collator, dummy_picture
from igva.data.labels import IGNORE
from igva.testing import tiny_model, tiny_processor


def text(name, length=4, **extra):
    ids = list(range(10, 10 + length))
    return {"id": name, "source": "s", "images": 0, "input_ids": ids, "labels": list(ids), **extra}


def pictured(name, images=1, **extra):
    extra = {"pixel_values": torch.ones(images, 3, 28, 28), "instruction_turns": [["Hm?"]] * images, **extra}
    return {**text(name, length=6), "images": images, **extra}


def test_a_row_each_padded_on_the_right(processor):
    batch = Collator(processor)([text("a", 3), text("b", 5)])
    pad = processor.tokenizer.pad_token_id
    assert batch["input_ids"].tolist() == [[10, 11, 12, pad, pad], [10, 11, 12, 13, 14]]
    assert batch["attention_mask"].tolist() == [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]
    assert batch["labels"].tolist() == [[IGNORE, 11, 12, IGNORE, IGNORE], [IGNORE, 11, 12, 13, 14]]
    assert batch["ids"] == ["a", "b"] and batch["sources"] == []
    assert set(batch) == {"input_ids", "labels", "attention_mask", "ids", "sources"}


def test_the_first_label_changes_no_loss(model, processor):
    batch = Collator(processor)([text("a")])
    batch = {name: batch[name] for name in ("input_ids", "labels")}
    learnt = {**batch, "labels": batch["input_ids"]}
    assert torch.equal(model(**batch).loss, model(**learnt).loss)


def test_the_samples_are_left_as_they_are(processor):
    samples = [text("a"), text("b", skipped=True)]
    before = [dict(sample, labels=list(sample["labels"])) for sample in samples]
    Collator(processor)(samples), Collator(processor, 64)(samples), Collator(processor)(samples[1:])
    assert samples == before


def test_rows_of_pictures(processor):
    batch = Collator(processor)([pictured("a", 2), text("b"), pictured("c")])
    assert batch["pixel_values"].shape[0] == batch["instruction_input_ids"].shape[0] == 3
    assert batch["sources"] == ["s", "s", "s"]


@pytest.mark.parametrize("pack_tokens", [None, 64])
def test_skipped_samples_are_dropped(pack_tokens, processor):
    samples = [text("a"), pictured("b", skipped=True, bad_images=["x.png", "y.png"]), text("c", bad_images=["z.png"])]
    batch = Collator(processor, pack_tokens)(samples)
    assert batch["ids"] == ["a", "c"]
    assert "pixel_values" not in batch and batch["sources"] == []
    assert batch["bad_images"] == ["x.png", "y.png", "z.png"]


@pytest.mark.parametrize("pack_tokens", [None, 64])
def test_one_sample_stays_if_all_are_skipped(pack_tokens, processor):
    batch = Collator(processor, pack_tokens)([text(name, skipped=True, labels=[IGNORE] * 4) for name in "ab"])
    assert batch["ids"] == ["a"]
    assert (batch["labels"] == IGNORE).all()


def test_no_bad_pictures_no_list(processor):
    assert "bad_images" not in Collator(processor)([text("a", bad_images=[])])


@pytest.mark.parametrize("pack_tokens", [None, 64])
@pytest.mark.parametrize("cached", [False, True])
@pytest.mark.parametrize("fusion", ["igva", "mean"])
def test_the_dummy_picture(fusion, cached, pack_tokens):
    model = tiny_model(fusion)
    processor = tiny_processor(model)
    collator = Collator(processor, pack_tokens, dummy=dummy_picture(model, cached=cached))
    batch = collator([text("a"), text("b")])
    assert batch["dummy_image"] is True and batch["sources"] == []
    assert (batch["input_ids"] != processor.image_token_id).all()
    inputs = {name: value for name, value in batch.items() if name.startswith(("pixel", "layer", "instruction"))}
    assert ("layer_patches" in inputs) == cached and ("pixel_values" in inputs) != cached
    features = model.get_image_features(**inputs)
    assert len(features.pooler_output) == 1 and features.pooler_output[0].isfinite().all()


def test_a_batch_with_pictures_needs_no_dummy(model, processor):
    dummy = dummy_picture(model, cached=False)
    batch = Collator(processor, dummy=dummy)([text("a"), pictured("b")])
    assert "dummy_image" not in batch and batch["pixel_values"].shape[0] == 1


def test_a_dummy_where_the_pictures_were_skipped(model, processor):
    batch = Collator(processor, dummy=dummy_picture(model, cached=False))([text("a"), pictured("b", skipped=True)])
    assert batch["dummy_image"] is True and batch["ids"] == ["a"]


def test_dummy_and_real_features_have_one_shape(picture):
    for pool in (1, 2):
        model = tiny_model(vision_pool=pool)
        pixels = tiny_processor(model).prepare_images([picture()])
        assert dummy_picture(model, cached=False)["pixel_values"].shape == pixels.shape
        layers, dummy = model.model.encode_image_layers(pixels), dummy_picture(model, cached=True)
        assert dummy["layer_patches"].shape == layers.patches.shape
        assert dummy["layer_descriptors"].shape == layers.descriptors.shape

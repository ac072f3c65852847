"""Samples by number: what is done about bad pictures, counted exactly, and augmentation that nothing else changes."""

from __future__ import annotations

import json

import pytest
import torch
from torch.utils.data import DataLoader

from igva.data.blank import blank_image
from igva.data.dataset import ChatDataset
from igva.data.images import StoredImage, open_image
from igva.data.labels import IGNORE
from igva.data.sources import read_records
from igva.errors import UserError
from igva.train.feature_cache import InstructionCache, LayerCache


@pytest.fixture
def records(llava):
    return read_records(llava / "mixed.json")


@pytest.fixture
def broken(llava):
    """The same records, of whose five pictures one is damaged (of ``several``) and one missing (of ``turns``)."""
    path = llava / "2.png"
    path.write_bytes(path.read_bytes()[:60])
    (llava / "3.png").unlink()
    return read_records(llava / "mixed.json")


def cached(model, processor, records, folder):
    layers = LayerCache(model, processor, folder)
    layers.fill((image for record in records for image in record.images), on_bad="record")
    return layers


def equal(first, second):
    assert first.keys() == second.keys()
    return all(
        torch.equal(value, second[name]) if torch.is_tensor(value) else value == second[name]
        for name, value in first.items()
    )


def first(samples):
    """For a loader without batches; a function of the module, so that processes can be given it."""
    return samples[0]


def test_samples(records, processor):
    dataset = ChatDataset(records, processor)
    one, several, turns, text = dataset
    assert [sample["images"] for sample in (one, several, turns, text)] == [1, 2, 2, 0]
    assert several["pixel_values"].shape == (2, 3, 28, 28) and "pixel_values" not in text
    assert turns["instruction_turns"] == [["Look:   Nice?", "And this?"]] * 2
    assert one["input_ids"].count(processor.image_token_id) == processor.num_image_tokens
    assert not any({"bad_images", "skipped"} & sample.keys() for sample in dataset)
    assert dataset.modalities() == [True, True, True, False]
    assert len(dataset.lengths()) == 4 and dataset.lengths()[1] > 2 * processor.num_image_tokens
    assert text["source"] == "mixed" and several["source"] == "pairs"


def test_every_index_has_its_record_and_an_epoch_ends(records, processor):
    dataset = ChatDataset(records, processor)
    assert [dataset[4 * 7 + i]["id"] for i in range(4)] == [record.id for record in records]
    assert dataset[4 * 10**12 + 2]["id"] == "turns"
    assert len(list(dataset)) == 4


def test_fail_names_sample_and_picture(broken, processor):
    dataset = ChatDataset(broken, processor)
    dataset[0]
    with pytest.raises(UserError, match=r"^sample several: .*2\.png is damaged.*data\.on_bad_image$"):
        dataset[1]
    with pytest.raises(UserError, match=r"^sample turns: .*3\.png does not exist"):
        dataset[2]


def test_an_error_out_of_a_loading_process_is_one_line(broken, processor, refusal):
    loader = DataLoader(ChatDataset(broken, processor), batch_size=1, num_workers=2, collate_fn=first)
    message = refusal(lambda: list(loader))
    assert "\n" not in message and message.startswith("sample several: ") and "2.png is damaged" in message


@pytest.mark.parametrize("in_cache", [False, True])
def test_fail_with_cached_features(broken, model, processor, tmp_path, in_cache):
    layers = LayerCache(model, processor, tmp_path / "features")
    with pytest.raises(UserError, match=r"3\.png does not exist"):
        layers.fill(image for record in broken for image in record.images)
    if in_cache:
        layers = cached(model, processor, broken, tmp_path / "features")
        with pytest.raises(UserError, match=r"sample several: .*2\.png is damaged"):
            ChatDataset(broken, processor, layers=layers)[1]


@pytest.mark.parametrize("policy", ["skip", "replace"])
@pytest.mark.parametrize("with_cache", [False, True])
def test_bad_pictures_become_blank(policy, with_cache, llava, records, model, processor, tmp_path):
    layers = cached(model, processor, records, tmp_path / "good") if with_cache else None
    good = list(ChatDataset(records, processor, layers=layers))
    path = llava / "2.png"
    path.write_bytes(path.read_bytes()[:60])
    (llava / "3.png").unlink()
    broken = read_records(llava / "mixed.json")
    if with_cache:
        layers = cached(model, processor, broken, tmp_path / "bad")
        assert layers.bad.keys() == {str(path), str(llava / "3.png")}
        assert "damaged" in layers.bad[str(path)] and "does not exist" in layers.bad[str(llava / "3.png")]
    one, several, turns, text = ChatDataset(broken, processor, layers=layers, on_bad_image=policy)
    assert equal(one, good[0]) and equal(text, good[3])
    assert several["bad_images"] == [str(path)] and turns["bad_images"] == [str(llava / "3.png")]
    name = "layer_patches" if with_cache else "pixel_values"
    assert torch.equal(several[name][0], good[1][name][0]) and torch.equal(turns[name][1], good[2][name][1])
    blank = blank_image(processor.image_processor)
    pixels = processor.prepare_images([open_image(blank)])
    assert pixels.abs().max() < 0.02  # the mean colour, to a 255th
    wanted = layers([blank]).patches if with_cache else pixels
    assert torch.equal(several[name][1:], wanted) and torch.equal(turns[name][:1], wanted)
    for sample, whole in ((several, good[1]), (turns, good[2])):
        assert sample["input_ids"] == whole["input_ids"] and sample["images"] == 2
        if policy == "skip":
            assert sample["skipped"] is True and set(sample["labels"]) == {IGNORE}
        else:
            assert "skipped" not in sample and sample["labels"] == whole["labels"]


def test_one_picture_in_a_hundred_is_counted_exactly(tmp_path, picture, processor):
    entries = []
    for i in range(100):
        data = tmp_path / f"{i}.png"
        picture(i % 7).save(data)
        if i == 17:
            data.write_bytes(b"no picture")
        turns = [{"from": "human", "value": "<image>"}, {"from": "gpt", "value": str(i)}]
        entries.append({"id": i, "image": data.name, "conversations": turns})
    (tmp_path / "data.json").write_text(json.dumps(entries))
    records = read_records(tmp_path / "data.json")
    loader = DataLoader(
        ChatDataset(records, processor, on_bad_image="skip"), batch_size=1, num_workers=2, collate_fn=first
    )
    samples = list(loader)
    assert [sample["id"] for sample in samples if sample.get("skipped")] == ["17"]
    assert [name for sample in samples for name in sample.get("bad_images", ())] == [str(tmp_path / "17.png")]


def test_stored_pictures_that_cannot_be_read(records, processor):
    def gone():
        raise FileNotFoundError(2, "No such file")

    bad = [StoredImage("table, row 3", gone), StoredImage.of("table, row 4", b"nothing")]
    record = next(record for record in records if record.id == "several")
    record = type(record)(record.id, record.chat, tuple(bad), record.source)
    with pytest.raises(UserError, match="sample several: table, row 3 cannot be read: No such file"):
        ChatDataset([record], processor)[0]
    sample = ChatDataset([record], processor, on_bad_image="replace")[0]
    assert sample["bad_images"] == ["table, row 3", "table, row 4"]


def test_augmentation_depends_on_seed_epoch_and_number_alone(records, processor):
    dataset = ChatDataset(records, processor, augment=True, seed=3)
    plain = ChatDataset(records, processor)
    indices = [0, 4, 1, 8, 2, 3, 5, 4_000_000_001]
    alone = {i: dataset[i] for i in reversed(indices)}  # in another order, in this process
    for workers in (0, 1, 2):
        loader = DataLoader(dataset, batch_size=1, sampler=indices, num_workers=workers, collate_fn=first)
        assert all(equal(sample, alone[i]) for i, sample in zip(indices, loader, strict=True))
    pixels = [alone[i]["pixel_values"] for i in (0, 4, 8)] + [plain[0]["pixel_values"]]
    pixels.append(ChatDataset(records, processor, augment=True, seed=4)[0]["pixel_values"])
    assert len({value.numpy().tobytes() for value in pixels}) == 5
    assert equal(ChatDataset(records, processor, augment=True, seed=3)[4], alone[4])
    assert equal(alone[3], plain[3])  # nothing to augment


def test_caches_and_settings(records, model, processor, tmp_path):
    layers = cached(model, processor, records, tmp_path)
    instructions = InstructionCache(model, processor, tmp_path)
    instructions.fill(turn for record in records for turn in processor.user_turns(record.chat))
    sample = ChatDataset(records, processor, layers=layers, instructions=instructions)[2]
    assert sample["instruction_embeds"].shape == (2, 24) and "pixel_values" not in sample
    blind = ChatDataset(records, processor, layers=layers, zero_images=True)[2]
    assert not blind["layer_patches"].any() and not blind["layer_descriptors"].any()
    refused = {
        "zero_images needs cached features": {"zero_images": True},
        "cached features cannot be augmented": {"layers": layers, "augment": True},
        "choose fail, skip or replace": {"on_bad_image": "ignore"},
    }
    for words, settings in refused.items():
        with pytest.raises(UserError, match=words):
            ChatDataset(records, processor, **settings)

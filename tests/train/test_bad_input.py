"""Whatever is wrong with a recipe or its data: one line on standard error, exit code 2, nothing written."""

import json
import re

import pytest

from igva.cli.main import entry

SETTINGS = {
    "optim.learning_rat=1": "did you mean optim.learning_rate?",
    "modle.fusion=igva": "did you mean model?",
    "model.fusion_kwargs={groups: [[1, 2], [3, 30]]}": "layer 30 does not exist",
    "model.fusion_kwargs={groups: [[1, 2], [2, 3]]}": "overlap",
    "model.fusion_kwargs={groups: [[1, 2], []]}": "empty|no layers",
    "model.fusion_kwargs={num_groups: 9}": "9",
    "model.fusion=igwa": "there is no fusion 'igwa'",
    "data.train=nowhere.json": "nowhere.json does not exist",
    "data.image_root=nowhere": "image folder nowhere does not exist",
    "data.validation=nowhere.json": "nowhere.json does not exist",
    "optim.batch_size=0": "1 or more",
    "trained=[eyes]": "trained names 'eyes'",
    "distributed=fsdp": "needs several processes",
    "lora.quantize=nf5": "choose from none, nf4",
}


def asked(image="images/0.png", question="<image>\nWhat?", **fields):
    turns = [{"from": "human", "value": question}, {"from": "gpt", "value": "It is."}]
    return {"id": "odd", "image": image, "conversations": turns, **fields}


ENTRIES = {
    "a placeholder is missing": (asked(["images/0.png", "images/1.png"]), "1 <image> placeholders but 2 images"),
    "a placeholder too many": (asked(question="<image><image>What?"), "2 <image> placeholders but 1 images"),
    "roles out of order": (asked(conversations=[{"from": "gpt", "value": "Hi."}]), "must alternate"),
    "two questions in a row": (asked(conversations=[{"from": "human", "value": "?"}] * 2), "must alternate"),
    "no conversation": ({"id": "odd", "image": "images/0.png"}, "no conversations|conversations"),
    "no picture there": (asked("images/none.png"), "none.png does not exist"),
    "an unknown role": (asked(conversations=[{"from": "narrator", "value": "?"}]), "role"),
}


@pytest.fixture
def fails(recipe, tmp_path, capsys):
    """``fails(*overrides)`` → what ``igva train`` says."""

    def run(*overrides):
        recipe()  # writes recipe.yaml
        assert entry(["train", str(tmp_path / "recipe.yaml"), *overrides]) == 2
        told = capsys.readouterr().err.strip().splitlines()[-1]
        assert told.startswith("igva: ")
        assert not (tmp_path / "run").exists()
        return told

    return run


@pytest.mark.parametrize("override", SETTINGS)
def test_settings(fails, override):
    assert re.search(SETTINGS[override], fails(override))


@pytest.mark.parametrize("kind", ENTRIES)
def test_samples(fails, data, kind):
    entry_, expected = ENTRIES[kind]
    entries = json.loads((data / "data.json").read_text())
    (data / "odd.json").write_text(json.dumps([*entries, entry_]))
    told = fails(f"data.train={data / 'odd.json'}")
    assert re.search(expected, told) and ("odd" in told or "none.png" in told)


def test_malformed_line(fails, data):
    entries = json.loads((data / "data.json").read_text())
    lines = [json.dumps(entry) for entry in entries]
    lines[4] = lines[4][:-10]
    (data / "data.jsonl").write_text("\n".join(lines))
    assert "data.jsonl, line 5: not valid JSON" in fails(f"data.train={data / 'data.jsonl'}")

"""A run is never mixed with another: what stands in its folder, what it was begun with, and what is damaged."""

import json
import os
import shutil

import pytest
import torch
from safetensors.torch import load_file

from igva.answering import load
from igva.errors import UserError
from igva.train.run import run
from igva.train.snapshots import damage, snapshots
from igva.train.starting_model import build_from_recipe


@pytest.fixture
def unfinished(recipe):
    """A run of four steps that was killed after its second: folder, and what an undisturbed one trains."""
    output = run(recipe("export=false"))
    whole = load_file(output / "trained.safetensors")
    (output / "trained.safetensors").unlink()
    shutil.rmtree(output / "checkpoint-4")
    return output, whole


def same(tensors, folder):
    found = load_file(folder / "trained.safetensors")
    return found.keys() == tensors.keys() and all(torch.equal(found[name], tensors[name]) for name in found)


def bytes_of(folder):
    return {path: path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def test_an_unfinished_run_is_not_begun_again(recipe, unfinished):
    output, _ = unfinished
    before = bytes_of(output)
    with pytest.raises(UserError, match="holds an unfinished run, at checkpoint-2: go on with --resume"):
        run(recipe("export=false", "optim.learning_rate=1e-5"))
    shutil.rmtree(output / "checkpoint-2")
    with pytest.raises(UserError, match="without a checkpoint yet"):
        run(recipe("export=false"))
    assert bytes_of(output).items() <= before.items()


DIFFERENT = {
    "optim.learning_rate=1e-5": "optim.learning_rate was 0.001, now 1e-05",
    "model.fusion_kwargs={num_groups: 2, hidden_size: 32, num_blocks: 1, num_heads: 2}": "model.fusion_kwargs was",
    "lora.rank=1": "lora.rank was 2, now 1",
    "stage=align lora.rank=0": "stage was instruct, now align",
    "data.zero_images=true": "data.zero_images was False, now True",
}


@pytest.mark.parametrize("options, words", DIFFERENT.items(), ids=[key.partition("=")[0] for key in DIFFERENT])
def test_other_settings_do_not_go_on(recipe, unfinished, options, words):
    output, _ = unfinished
    before = bytes_of(output)
    changed = [options] if "{" in options else options.split()
    with pytest.raises(UserError, match="was begun otherwise: ") as error:
        run(recipe("export=false", *changed), resume=True)
    assert words in str(error.value) and "model.init_from=" in str(error.value) and "\n" not in str(error.value)
    assert bytes_of(output) == before


def test_other_data_does_not_go_on(recipe, unfinished, data):
    output, _ = unfinished
    entries = json.loads((data / "data.json").read_text())
    entries[0]["conversations"][1]["value"] = "It is another."
    (data / "data.json").write_text(json.dumps(entries))
    with pytest.raises(UserError, match=r"data\.train has changed \(.*data\.json\)"):
        run(recipe("export=false"), resume=True)
    assert not (output / "trained.safetensors").exists()


def test_the_same_data_elsewhere_goes_on(recipe, unfinished, data, tmp_path):
    output, whole = unfinished
    data.rename(tmp_path / "moved")
    run(recipe("export=false", f"data.train={tmp_path / 'moved/data.json'}", "optim.logging_steps=2"), resume=True)
    assert same(whole, output)


def test_a_run_may_become_longer(recipe, capsys):
    output = run(recipe("export=false"))
    capsys.readouterr()
    run(recipe("export=false", "optim.max_steps=6", "optim.save_steps=3"), resume=True)
    error = capsys.readouterr().err
    assert "since it was begun: optim.max_steps was 4, now 6" in error and "optim.save_steps was 2, now 3" in error
    assert json.loads((output / "run.json").read_text())["figures"]["steps"] == 6


def test_nothing_to_go_on_with(recipe, tmp_path):
    with pytest.raises(UserError, match="holds no run to go on with: leave --resume out"):
        run(recipe(f"output={tmp_path / 'typo'}"), resume=True)
    assert not (tmp_path / "typo").exists()


def test_a_run_without_a_checkpoint_begins_and_says_so(recipe, unfinished, capsys):
    output, whole = unfinished
    shutil.rmtree(output / "checkpoint-2")
    run(recipe("export=false"), resume=True)
    assert "has no checkpoint yet: the run begins at step 0" in capsys.readouterr().err
    assert same(whole, output)


def test_it_says_what_it_goes_on_from(recipe, unfinished, capsys):
    output, whole = unfinished
    facts = json.loads((output / "run.json").read_text())
    facts["versions"]["torch"] = "1.0"
    (output / "run.json").write_text(json.dumps(facts))
    run(recipe("export=false"), resume=True)
    error = capsys.readouterr().err
    assert f"going on from {output / 'checkpoint-2'}" in error and "torch was 1.0, now" in error
    resumed = json.loads((output / "run.json").read_text())["resumed"]
    assert [(entry["from"], entry["versions"]["torch"]) for entry in resumed] == [("checkpoint-2", "1.0")]
    assert same(whole, output)


@pytest.mark.parametrize("damaged", ["flipped", "cut", "gone", "no listing"])
def test_a_damaged_checkpoint_falls_back_to_the_one_before(recipe, tmp_path, capsys, damaged):
    settings = recipe("export=false", "optim.keep_checkpoints=3", "optim.save_steps=1")
    output = run(settings)
    whole = load_file(output / "trained.safetensors")
    (output / "trained.safetensors").unlink()
    shutil.rmtree(output / "checkpoint-4")
    file = output / "checkpoint-3/trained.safetensors"
    content = bytearray(file.read_bytes())
    if damaged == "flipped":
        content[-5] ^= 8
        file.write_bytes(content)
    elif damaged == "cut":
        file.write_bytes(content[: len(content) // 2])
    elif damaged == "gone":
        (output / "checkpoint-3/optimizer.pt").unlink()
    else:  # as igva wrote them before they had one; cut too
        (output / "checkpoint-3/checkpoint.json").unlink()
        file.write_bytes(content[: len(content) // 2])
    assert damage(output / "checkpoint-3") and damage(output / "checkpoint-2") is None
    run(settings, resume=True)
    error = capsys.readouterr().err
    assert "checkpoint-3 is damaged (" in error and f"going on from {output / 'checkpoint-2'}" in error
    assert same(whole, output)


def test_only_damaged_checkpoints(recipe, unfinished):
    output, _ = unfinished
    (output / "checkpoint-2/optimizer.pt").write_bytes(b"")
    with pytest.raises(UserError, match=r"every checkpoint in .* is damaged"):
        run(recipe("export=false"), resume=True)


def test_the_newest_is_the_one_that_was_written_last(recipe, unfinished):
    """Whatever its number, and whatever times a copy gave the files; a checkpoint without a listing has its files'."""
    output, _ = unfinished
    older = output / "checkpoint-900"
    shutil.copytree(output / "checkpoint-2", older)
    contents = json.loads((older / "checkpoint.json").read_text())
    contents["written"] -= 60
    (older / "checkpoint.json").write_text(json.dumps(contents))
    assert snapshots(output)[-1].name == "checkpoint-2"
    (older / "checkpoint.json").unlink()
    for path in older.iterdir():
        os.utime(path, (1, 1))
    assert snapshots(output)[-1].name == "checkpoint-2"


# --- any igva folder as the start -------------------------------------------------------------------------------------


def whole_start(recipe, folder, *options):
    """The recipe with the whole model section replaced."""
    return recipe(f"model={{init_from: {folder}, dtype: float32}}", *options)


def test_a_model_folder_is_trained_further(recipe, tmp_path):
    model, processor = build_from_recipe(recipe())
    folder = tmp_path / "saved"
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    nothing = run(whole_start(recipe, folder, "optim.max_steps=0", f"output={tmp_path / 'nothing'}"))
    before, after = (load(path)[0].state_dict() for path in (folder, nothing))
    assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)
    output = run(whole_start(recipe, folder, f"output={tmp_path / 'further'}"))
    further = load(output)[0].state_dict()
    assert any(not torch.equal(before[name], further[name]) for name in before)
    assert json.loads((output / "run.json").read_text())["inherited"] == {"everything": str(folder)}
    again = run(whole_start(recipe, output, f"output={tmp_path / 'again'}"))  # a finished run is a model folder too
    kept, found = (load(path)[0].config.to_dict() for path in (folder, again))
    assert {**found, "_name_or_path": ""} == {**kept, "_name_or_path": ""}


def test_a_model_folder_is_no_earlier_stage(recipe, tmp_path):
    model, processor = build_from_recipe(recipe())
    model.save_pretrained(tmp_path / "saved")
    processor.save_pretrained(tmp_path / "saved")
    with pytest.raises(UserError, match=r"holds a whole model.*'model=\{init_from: "):
        run(recipe(f"model.init_from={tmp_path / 'saved'}"))


def test_a_folder_of_something_else_is_no_start(recipe, parts):
    with pytest.raises(UserError, match="not an igva model"):
        run(whole_start(recipe, parts["text"]))


# --- nothing loads before everything is checked -----------------------------------------------------------------------

WRONG = {
    "model.fusion=nope": "there is no fusion 'nope'",
    "model.fusion_kwargs.num_group=4": "did you mean 'num_groups'",
    "model.fusion_kwargs.num_groups='4'": "option 'num_groups' is '4', expected a whole number",
    "model.fusion_kwargs.num_groups=99": "99",
    "model.fusion_kwargs.hidden_size=0": "hidden_size is 0: 1 or more is expected",
    "model.init_from=nowhere": "nowhere/trained.safetensors does not exist",
    "model.vision=/nowhere/at/all": "/nowhere/at/all does not exist",
    "model.text=/": "cannot be read",
    "lora.rank=-1": "lora.rank is -1: 0 or more is expected",
    "optim.learning_rate=-1": "optim.learning_rate is -1: 0 or more is expected",
    "optim.learning_rate=.nan": "optim.learning_rate is nan",
    "optim.epochs=0": "optim.epochs is 0: a number above 0 is expected",
    "lora.dropout=1.5": "lora.dropout is 1.5: a share from 0 to 1 is expected",
    "optim.max_steps=-2": "optim.max_steps is -2",
}


@pytest.mark.parametrize("option, words", WRONG.items(), ids=list(WRONG))
def test_what_is_wrong_is_told_before_anything_loads(recipe, monkeypatch, option, words):
    monkeypatch.setattr("igva.train.starting_model.build", lambda *args, **kwargs: pytest.fail("it was loaded"))
    monkeypatch.setattr("igva.train.run.read_data", lambda *args, **kwargs: pytest.fail("the data was read"))
    with pytest.raises(UserError) as error:
        run(recipe(option))
    assert words in str(error.value) and "\n" not in str(error.value)


def test_what_an_earlier_run_trained_is_checked_by_its_header(recipe, tmp_path, monkeypatch):
    first = run(recipe(f"output={tmp_path / 'first'}", "export=false"))
    monkeypatch.setattr("igva.train.starting_model.build", lambda *args, **kwargs: pytest.fail("it was loaded"))
    for option, words in {
        "lora.rank=1": "was trained with other adapters",
        "model.fusion_kwargs={num_groups: 2, hidden_size: 32, num_blocks: 1, num_heads: 2}": "has no counterpart of",
        "model.fusion=single model.fusion_kwargs={}": "has no counterpart of",
    }.items():
        changed = [option] if ": " in option else option.split()
        with pytest.raises(UserError, match=words):
            run(recipe(f"model.init_from={first}", *changed))
    (first / "trained.safetensors").write_bytes(b"x" * 100)
    with pytest.raises(UserError, match="is damaged"):
        run(recipe(f"model.init_from={first}"))

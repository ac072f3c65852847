"""R1, R2, R3 and R5: kills while saving, stops and resumes, merging, corrupt pictures."""

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from igva.answering import load
from igva.checkpoints.trained import read_trained
from igva.errors import UserError
from igva.train.merge import merge
from igva.train.run import run
from igva.train.snapshots import publish, snapshots, staging_folder
from igva.train.stages import set_trainable
from igva.train.starting_model import build_from_recipe

NURSERY = Path(__file__).parent / "killed_worker.py"
WITH_CARE = ("data.cache_features=false", "data.augment=true", "optim.workers=2", "lora.dropout=0.1")


def equal(first, second):
    mine, theirs = load_file(first), load_file(second)
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


# --- R1 ---------------------------------------------------------------------------------------------------------------


def test_twenty_kills_while_saving(recipe, tmp_path):
    """Each run goes on from what the last one left and is killed in the midst of a save; the newest checkpoint always
    loads, and what comes out in the end is what an undisturbed run gives."""
    settings = ["optim.save_steps=1", "optim.max_steps=24", "optim.logging_steps=24", "export=false"]
    whole = run(recipe(*settings, f"output={tmp_path / 'whole'}"))
    output, dice = tmp_path / "killed", random.Random(0)
    # One process that forks a child per attempt: the imports are paid for once.
    nursery = subprocess.Popen(
        [sys.executable, NURSERY, tmp_path / "recipe.yaml", *settings, f"output={output}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env=os.environ | {"OMP_NUM_THREADS": "1"},
    )
    kills = 0
    while kills < 20:
        known = snapshots(output)[-1] if snapshots(output) else None
        child = spawn(nursery)
        wait_for(lambda: (output / ".saving").exists() or finished(output), child)
        if finished(output):
            break
        time.sleep(dice.uniform(0, 0.03))
        os.kill(child, signal.SIGKILL)
        assert nursery.stdout.readline().startswith("ended")
        kills += 1
        found = snapshots(output)
        assert known is None or found, "a good checkpoint is gone"
        if found:
            assert known is None or int(found[-1].name[11:]) >= int(known.name[11:])
            complete(found[-1])
    assert kills == 20
    spawn(nursery)
    assert nursery.stdout.readline().strip() == "ended 0"
    nursery.stdin.close()
    nursery.wait(10)
    assert equal(whole / "trained.safetensors", output / "trained.safetensors")


def spawn(nursery):
    nursery.stdin.write("go\n")
    nursery.stdin.flush()
    return int(nursery.stdout.readline())


def wait_for(condition, child):
    limit = time.time() + 60
    while not condition():
        assert time.time() < limit
        time.sleep(0.0005)


def finished(output):
    return (output / "trained.safetensors").exists()


def complete(checkpoint):
    read_trained(checkpoint / "trained.safetensors")
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.load(checkpoint / name, weights_only=False)
    assert json.loads((checkpoint / "trainer_state.json").read_text())["global_step"] == int(checkpoint.name[11:])


def test_publish_keeps_the_newest_and_hides_what_goes(tmp_path):
    for step in (9, 10, 11):
        folder = staging_folder(tmp_path, True) / f"checkpoint-{step}"
        folder.mkdir()
        (folder / "file").write_text("x")
        publish(tmp_path, keep=2)
    assert [folder.name for folder in snapshots(tmp_path)] == ["checkpoint-10", "checkpoint-11"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint-10", "checkpoint-11"]


def test_what_a_killed_save_left_is_no_checkpoint(tmp_path):
    half = staging_folder(tmp_path, True) / "checkpoint-7"
    half.mkdir()
    assert snapshots(tmp_path) == []
    assert list(staging_folder(tmp_path, True).iterdir()) == []


# --- R2 ---------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("packed", [False, True])
def test_resume_mid_epoch_is_bitwise_with_workers_and_augmentation(recipe, tmp_path, packed):
    """Nine samples, three a step: step 2 of 6 is in the midst of the first epoch, step 4 of the second."""
    options = [*WITH_CARE, "optim.max_steps=6", "optim.keep_checkpoints=9", "export=false"]
    options += ["data.pack_tokens=2048"] if packed else []
    whole = run(recipe(*options, f"output={tmp_path / 'whole'}"))
    for stop in (2, 4):
        output = tmp_path / f"part-{stop}"
        shutil.copytree(whole, output)
        (output / "trained.safetensors").unlink()
        for folder in snapshots(output):
            if int(folder.name[11:]) > stop:
                shutil.rmtree(folder)
        run(recipe(*options, f"output={output}"), resume=True)
        assert equal(whole / "trained.safetensors", output / "trained.safetensors")
        assert losses(whole) == losses(output)


def losses(output):
    state = json.loads((snapshots(output)[-1] / "trainer_state.json").read_text())
    return [entry["loss"] for entry in state["log_history"] if "loss" in entry]


def test_augmentation_changes_what_is_learnt(recipe, tmp_path):
    """The control of the test above: augmentation is not inert."""
    outputs = [
        run(recipe("data.cache_features=false", f"data.augment={on}", "export=false", f"output={tmp_path / on}"))
        for on in ("true", "false")
    ]
    assert not equal(*(output / "trained.safetensors" for output in outputs))


# --- R3 ---------------------------------------------------------------------------------------------------------------


def test_merged_lora_says_the_same(recipe, tmp_path, picture):
    """Adapters beside the weights and folded into them: logits within 1e-4, from the run and from a checkpoint."""
    output = run(recipe("export=false", "optim.learning_rate=1e-2"))
    assert not (output / "config.json").exists()
    unmerged, processor = build_from_recipe(recipe())
    set_trainable(unmerged, recipe())
    from igva.checkpoints.trained import restore_trained

    restore_trained(unmerged, output / "trained.safetensors")
    chat = [
        {"role": "user", "content": [{"type": "image", "image": picture()}, {"type": "text", "text": "What is it?"}]}
    ]
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    for trained in (output, output / "checkpoint-4"):
        merged, _ = load(merge(trained, tmp_path / f"merged-{trained.name}"))
        assert not any("lora" in name for name, _ in merged.named_parameters())
        with torch.no_grad():
            first, second = unmerged.eval()(**inputs).logits, merged(**inputs).logits
        torch.testing.assert_close(second, first, atol=1e-4, rtol=0)
    start, _ = build_from_recipe(recipe())
    with torch.no_grad():
        assert (start.eval()(**inputs).logits - first).abs().max() > 1e-2  # it did learn something


def test_merge_refuses(recipe, tmp_path):
    with pytest.raises(UserError, match=r"run\.json is neither in it nor beside it"):
        merge(tmp_path, tmp_path / "out")
    output = run(recipe("export=false"))
    with pytest.raises(UserError, match="exists already"):
        merge(output, output)
    (output / "trained.safetensors").unlink()
    with pytest.raises(UserError, match=r"has no trained\.safetensors"):
        merge(output, tmp_path / "out")
    assert not (tmp_path / "out").exists()


# --- R5 ---------------------------------------------------------------------------------------------------------------


@pytest.fixture
def corrupt(data, picture):
    """200 pictures, of which two are damaged: 1 %."""
    entries = []
    for i in range(200):
        path = data / f"images/many-{i}.png"
        picture(i).save(path)
        if i in (17, 93):
            path.write_bytes(path.read_bytes()[:60])
        turns = [{"from": "human", "value": "<image>\nWhat?"}, {"from": "gpt", "value": f"It is {i}."}]
        entries.append({"id": f"m{i}", "image": f"images/{path.name}", "conversations": turns})
    (data / "many.json").write_text(json.dumps(entries))
    return data / "many.json"


@pytest.mark.parametrize("cached", ["true", "false"])
@pytest.mark.parametrize("policy", ["skip", "replace"])
def test_corrupt_pictures_are_counted_exactly(recipe, corrupt, policy, cached, capsys):
    options = [f"data.train={corrupt}", f"data.on_bad_image={policy}", f"data.cache_features={cached}"]
    options += ["optim.max_steps=-1", "optim.batch_size=20", "optim.workers=2", "export=false"]
    output = run(recipe(*options))
    figures = json.loads((output / "run.json").read_text())["figures"]
    assert figures["steps"] == 10 and figures["bad_images"] == 2
    assert [Path(name.split(":")[0]).stem for name in figures["bad_image_names"]] == ["many-17", "many-93"]
    assert f"2 pictures could not be used ({policy})" in capsys.readouterr().out


def test_too_many_corrupt_pictures_stop_the_run(recipe, corrupt):
    options = [f"data.train={corrupt}", "data.on_bad_image=skip", "data.max_bad_share=0.005"]
    with pytest.raises(UserError, match=r"bad pictures among .* are more than data\.max_bad_share 0\.005"):
        run(recipe(*options, "optim.max_steps=-1", "optim.batch_size=20", "export=false"))


def test_a_corrupt_picture_fails_by_default(recipe, corrupt):
    with pytest.raises(UserError, match=r"many-\d+\.png is damaged"):
        run(recipe(f"data.train={corrupt}", "optim.max_steps=-1", "optim.batch_size=20"))

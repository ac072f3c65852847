"""Two real processes over gloo, each with its own data: the same steps as one process, under a time limit."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from safetensors.torch import load_file

from igva.answering import load
from igva.errors import UserError
from igva.testing import tiny_model
from igva.train import distributed
from igva.train.arguments import load_recipe
from igva.train.distributed import blocks, check_distributed, deepspeed_config, shares
from igva.train.merge import merge
from igva.train.starting_model import build_from_recipe

WORKER = Path(__file__).parent / "distributed_worker.py"
LIMIT = 150  # seconds; a hang is what these tests are for


@pytest.fixture(scope="module")
def setting(tmp_path_factory, parts):
    """A recipe file: pictures, two pictures, text-only samples; full training in float32, two steps of eight."""
    folder = tmp_path_factory.mktemp("distributed")
    (folder / "images").mkdir()
    for i in range(12):
        Image.new("RGB", (28, 28), (20 * i, 255 - 20 * i, (37 * i) % 255)).save(folder / f"images/{i}.png")
    entries = []
    for i in range(16):
        images = [f"images/{i % 12}.png"] if i % 3 else []
        images += [f"images/{(i + 5) % 12}.png"] if i % 5 == 4 and images else []
        question = "<image>\n" * len(images) + "What is it? " + "And why? " * (i % 4)
        turns = [{"from": "human", "value": question}, {"from": "gpt", "value": f"It is number {i}." * (1 + i % 2)}]
        entries.append({"id": f"s{i}", "conversations": turns, **({"image": images} if images else {})})
    (folder / "data.json").write_text(json.dumps(entries))
    texts = [entry for entry in entries if "image" not in entry]
    (folder / "text.json").write_text(json.dumps(texts * 2))
    closed = [
        {"image": f"images/{i}.png", "conversations": [
            {"from": "human", "value": f"<image>\nIs it {color}? " + "Or not? " * (i % 3)},
            {"from": "gpt", "value": "yes" if i % 2 else "no"},
        ]}
        for i in range(12) for color in ("red", "blue")
    ]  # fmt: skip
    (folder / "closed.json").write_text(json.dumps(closed))
    recipe = {
        "stage": "instruct",
        "output": str(folder / "run"),
        "export": False,
        "model": {**parts, "fusion_kwargs": {"num_groups": 2, "hidden_size": 16, "num_blocks": 1, "num_heads": 2}},
        "data": {"train": str(folder / "data.json")},
        "optim": {"learning_rate": 1e-3, "batch_size": 8, "max_steps": 2, "logging_steps": 1, "save_steps": 1},
    }
    (folder / "recipe.yaml").write_text(yaml.safe_dump(recipe))
    return folder


def alone_environment():
    return {k: v for k, v in os.environ.items() if k not in ("WORLD_SIZE", "RANK", "LOCAL_RANK")}


def launch(setting, processes, *jobs):
    """Run jobs in so many processes, and return the folder with what they left."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = alone_environment() | {"IGVA_HOME": str(setting / "home"), "OMP_NUM_THREADS": "1"}
    # As a compiler killed at its work leaves it: whoever compiled DeepSpeed's operation here would wait for ever.
    lock = setting / "extensions" / "deepspeed_shm_comm" / "lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.touch()
    environment["TORCH_EXTENSIONS_DIR"] = str(lock.parents[1])
    done = subprocess.run(
        [*map(str, command), str(WORKER), str(setting), *jobs],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-20000:]


def seen(setting, name):
    return torch.load(setting / f"{name}.pt", weights_only=False)


@pytest.fixture(scope="module")
def alone(setting):
    """One process, the batch whole and in micro-batches."""
    launch(setting, 1, "alone", "micro optim.micro_batch_size=2")
    return seen(setting, "alone")


WARMED = "allocator.steps=3 allocator.batch_size=4 data.cache_features=true"
LATE = "optim.max_steps=4 optim.keep_checkpoints=9"  # two steps an epoch: step 3 is in the midst of the second
MIXED = "data.group_by=none optim.batch_size=2 optim.max_steps=6"


@pytest.fixture(scope="module")
def two(setting):
    """Two processes: DDP, batches with and without pictures, FSDP2."""
    text = f"data.train={setting / 'text.json'}"
    launch(
        setting,
        2,
        "ddp",
        f"mixed {MIXED}",
        f"text {MIXED} {text}",
        f"cached-mixed {MIXED} data.cache_features=true",
        f"cached-text {MIXED} data.cache_features=true {text}",
        f"late {LATE}",
        f"late --back=3 {LATE}",
        "fsdp distributed=fsdp",
        "fsdp --back=1 distributed=fsdp",
        f"warmed data.train={setting / 'closed.json'} {WARMED}",  # last: every process sees other questions
    )
    return setting


def test_processes_end_where_they_leave(alone, two):
    """What is registered for the end is done, nothing after it; a process alone goes on as ever."""
    assert {path.name for path in two.glob("left-*")} == {"left-0", "left-1"}
    assert {path.name for path in two.glob("still-there-*")} == {"still-there-0"}  # of the one that was alone


LEAVE = """
import atexit, os, threading, time
from accelerate import PartialState
from igva.train.distributed import leave_processes

PartialState(cpu=True)
os.environ["WORLD_SIZE"] = "2"
threading.Thread(target=time.sleep, args=(600,)).start()  # an interpreter that is taken down waits for it
atexit.register(print, "registered for the end", end="")
leave_processes()
"""


def test_leaving_runs_what_is_registered_and_waits_for_no_thread():
    command = [sys.executable, "-c", LEAVE]
    done = subprocess.run(command, env=alone_environment(), capture_output=True, text=True, timeout=LIMIT)
    assert (done.returncode, done.stdout) == (0, "registered for the end")


def steps(told, pieces=1):
    """The loss of each step, which is the sum over its micro-batches."""
    return torch.tensor(told["losses"]).view(-1, pieces).sum(dim=1)


def same_step(expected, found, *, pieces=1, tolerance=1e-5):
    torch.testing.assert_close(steps(found, pieces), steps(expected), atol=tolerance, rtol=tolerance)
    assert found["gradients"].keys() == expected["gradients"].keys()
    for name, gradient in expected["gradients"].items():
        torch.testing.assert_close(found["gradients"][name], gradient, atol=tolerance, rtol=tolerance, msg=name)


def alike(first, second, tolerance):
    """Two trained files hold the same."""
    mine, theirs = load_file(first), load_file(second)
    assert mine.keys() == theirs.keys()
    for name, value in mine.items():
        torch.testing.assert_close(theirs[name], value, atol=tolerance, rtol=0, msg=name)


def trained(setting, name):
    return setting / name / "trained.safetensors"


def test_micro_batches_change_nothing(setting, alone):
    same_step(alone, seen(setting, "micro"), pieces=4)
    alike(trained(setting, "alone"), trained(setting, "micro"), 2e-5)


def test_ddp_equals_one_process_at_double_batch(setting, alone, two):
    """Four samples on each of two devices are one step of eight: tokens and pictures are counted globally."""
    told = seen(setting, "ddp")
    assert {"DistributedDataParallel", "DistributedType.MULTI_CPU"} <= told["types"]
    (first, _), (second, _) = told["by_rank"]
    assert all(not set(a) & set(b) for a, b in zip(first, second, strict=True))  # different data
    assert [sorted(a + b) for a, b in zip(first, second, strict=True)] == [sorted(ids) for ids in alone["ids"]]
    same_step(alone, told)
    alike(trained(setting, "alone"), trained(setting, "ddp"), 2e-5)


@pytest.mark.parametrize("prefix", ["", "cached-"])
def test_batches_without_pictures_do_not_hang(setting, two, prefix):
    """One device's batch has pictures, the other's none; then no batch has any."""
    mixed, text = seen(setting, f"{prefix}mixed"), seen(setting, f"{prefix}text")
    (first, some), (second, others) = mixed["by_rank"]
    assert len(first) == len(second) == 6 and 1 <= some + others < 12  # it did happen
    assert torch.isfinite(steps(mixed)).all()
    assert [count for _, count in text["by_rank"]] == [6, 6]


def test_two_processes_resume_in_the_midst_of_an_epoch(setting, two):
    alike(setting / "late.safetensors", trained(setting, "late"), 0)


def test_fsdp_shards_saves_and_resumes(setting, alone, two):
    """Parameters are DTensors; one process loads what they saved; stopping and resuming changes nothing."""
    told = seen(setting, "fsdp")
    assert told["dtensors"] == len(list(tiny_parameters(setting)))
    assert "DistributedDataParallel" not in told["types"]
    same_step(alone, told)
    arrived(setting, "fsdp")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["zero2", "zero3"])
def test_deepspeed_saves_and_resumes(setting, alone, stage):
    pytest.importorskip("deepspeed")
    launch(setting, 2, f"{stage} distributed={stage}", f"{stage} --back=1 distributed={stage}")
    told = seen(setting, stage)
    assert {"DistributedType.DEEPSPEED", "DeepSpeedEngine"} <= told["types"]
    assert told["partitioned"] == (len(list(tiny_parameters(setting))) if stage == "zero3" else 0)
    torch.testing.assert_close(steps(told), steps(alone), atol=1e-5, rtol=1e-5)
    arrived(setting, stage)


def one_fusion(setting, name):
    """The processes' fusions have seen other questions; one is told to all, and its guidance stands in the log."""
    first, second = (torch.load(setting / f"{name}-{rank}-warmed.pt") for rank in (0, 1))
    assert first.keys() == second.keys() and any(value.abs().max() > 0 for value in first.values())
    for key, value in first.items():
        assert torch.equal(value, second[key]), key
    history = json.loads((setting / name / "checkpoint-2/trainer_state.json").read_text())["log_history"]
    guided = [value for entry in history for key, value in entry.items() if key.startswith("guidance")]
    assert guided and all(0 <= float(value) <= 1 for value in guided)
    assert steps(seen(setting, name)).isfinite().all()


def test_one_fusion_behind_a_warm_up(two):
    one_fusion(two, "warmed")


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["fsdp", "zero3"])
def test_one_fusion_behind_a_warm_up_where_parameters_are_spread(setting, mode):
    if mode == "zero3":
        pytest.importorskip("deepspeed")
    name = f"warmed-{mode}"
    launch(setting, 2, f"{name} distributed={mode} data.train={setting / 'closed.json'} {WARMED}")
    one_fusion(setting, name)


def arrived(setting, name):
    """The same weights as one process, before and after a stop, and a model that says the same."""
    before_stop = setting / f"{name}.safetensors"
    alike(trained(setting, "alone"), before_stop, 2e-5)
    alike(before_stop, trained(setting, name), 1e-6)
    said = [logits(merge(setting / run, setting / f"merged-{run}-{name}"), setting) for run in ("alone", name)]
    torch.testing.assert_close(said[1], said[0], atol=1e-3, rtol=1e-3)


def logits(folder, setting):
    model, processor = load(folder)
    content = [{"type": "image", "image": Image.open(setting / "images/3.png")}, {"type": "text", "text": "What?"}]
    chat = [{"role": "user", "content": content}]
    inputs = processor.apply_chat_template(chat, tokenize=True, return_dict=True, return_tensors="pt")
    with torch.no_grad():
        return model(**inputs).logits


def tiny_parameters(setting):
    model, _ = build_from_recipe(load_recipe(str(setting / "recipe.yaml")))
    return model.parameters()


def test_blocks_are_the_transformer_layers():
    assert len(blocks(tiny_model())) == 4 + 2


def test_shares(recipe, monkeypatch):
    assert shares(recipe("optim.batch_size=6", "optim.micro_batch_size=2")) == (2, 3)
    monkeypatch.setenv("WORLD_SIZE", "3")
    assert shares(recipe("optim.batch_size=6", "optim.micro_batch_size=2")) == (2, 1)
    with pytest.raises(UserError, match="8 does not divide evenly over 3 processes"):
        shares(recipe("optim.batch_size=8"))
    with pytest.raises(UserError, match="micro_batch_size 3 does not divide the 4 samples"):
        shares(recipe("optim.batch_size=12", "optim.micro_batch_size=3"))


def test_what_cannot_be_shared_is_refused(recipe, monkeypatch):
    with pytest.raises(UserError, match=r"fsdp needs several processes.*torchrun"):
        check_distributed(recipe("distributed=fsdp"))
    monkeypatch.setattr(distributed, "is_deepspeed_available", lambda: False)
    with pytest.raises(UserError, match=r"igva\[deepspeed\]"):
        check_distributed(recipe("distributed=zero3"))


def test_deepspeed_settings_are_packaged(recipe):
    assert deepspeed_config(recipe()) is None
    assert deepspeed_config(recipe("distributed=zero3"))["zero_optimization"]["stage"] == 3

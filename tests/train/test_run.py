"""A whole run on random parts: what is trained, what is written, how it goes on, and what it refuses."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from igva.answering import answer, load
from igva.checkpoints.trained import TRAINED_FILE, read_trained
from igva.data.collate import Collator
from igva.data.dataset import ChatDataset
from igva.data.sources import read_records
from igva.errors import UserError
from igva.train.cells import CellTask
from igva.train.feature_cache import LayerCache
from igva.train.run import run
from igva.train.stages import set_trainable
from igva.train.starting_model import build_from_recipe
from igva.train.warmup import warm_up


def trainable(model):
    return {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad}


def test_align_trains_the_projector_only(recipe):
    settings = recipe("stage=align", "model.fusion=mean", "model.fusion_kwargs={num_groups: 2}", "lora.rank=0")
    model, _ = build_from_recipe(settings)
    set_trainable(model, settings)
    assert trainable(model) == {"projector"}


@pytest.mark.parametrize("cached", [True, False])
def test_batches_without_pictures_while_the_language_model_is_frozen(recipe, data, cached):
    """Nothing is to be learnt from them; the step is taken all the same."""
    file = data / "data.json"
    entries = json.loads(file.read_text())
    turns = [{"from": "human", "value": "What is 2 and 2?"}, {"from": "gpt", "value": "4"}]
    words = [{"id": f"text {number}", "conversations": turns} for number in range(8)]
    file.write_text(json.dumps([*words, *entries[:2]]))
    frozen = ("stage=align", "model.fusion=mean", "model.fusion_kwargs={num_groups: 2}", "lora.rank=0")
    output = run(
        recipe(*frozen, "optim.batch_size=2", "optim.max_steps=5", f"data.cache_features={str(cached).lower()}")
    )
    assert json.loads((output / "run.json").read_text())["figures"]["steps"] == 5


def test_instruct_trains_fusion_projector_and_lora(recipe):
    model, _ = build_from_recipe(recipe())
    set_trainable(model, recipe())
    assert trainable(model) == {"projector", "fusion", "language_model"}
    text = [n for n, p in model.named_parameters() if p.requires_grad and "language_model" in n]
    assert len(text) == 2 * 7 * 2 and all("lora_" in name for name in text)  # 2 layers, 7 linears, two factors


def test_instruct_without_lora_trains_the_whole_language_model(recipe):
    model, _ = build_from_recipe(recipe("lora.rank=0"))
    set_trainable(model, recipe("lora.rank=0"))
    assert all(p.requires_grad for p in model.model.language_model.parameters())
    assert not any(p.requires_grad for p in model.model.vision_tower.parameters())


def test_run_writes_a_model_that_answers(recipe, picture):
    output = run(recipe())
    told = json.loads((output / "run.json").read_text())
    assert told["figures"]["steps"] == 4
    assert told["data"] == {**told["data"], "samples": 9, "pictures": 8}
    model, processor = load(output)
    assert model.model.fusion.layer_groups == ((1, 2), (3, 4))
    result = answer(model, processor, picture(), "What?", max_new_tokens=2)
    assert sum(result.layer_weights) == pytest.approx(1, abs=1e-3)


def test_trained_file_is_what_changed(recipe):
    """The exported model is the starting model plus the file: LoRA folded in, everything else untouched."""
    start, _ = build_from_recipe(recipe())
    output = run(recipe())
    tensors = load_file(output / "trained.safetensors")
    finished, _ = load(output)
    before, after = start.state_dict(), finished.state_dict()
    changed = {
        name.removeprefix("model.").removesuffix(".weight")
        for name in before
        if not torch.equal(before[name], after[name])
    }
    named = {name.removesuffix(".weight").removesuffix(".lora_A").removesuffix(".lora_B") for name in tensors}
    assert changed <= named
    assert any("q_proj" in name for name in changed) and any("allocator" in name for name in changed)
    key = "language_model.layers.0.self_attn.q_proj"
    delta = 2.0 * tensors[f"{key}.lora_B"] @ tensors[f"{key}.lora_A"]  # alpha 4 / rank 2
    found = after[f"model.{key}.weight"] - before[f"model.{key}.weight"]
    torch.testing.assert_close(found, delta, atol=1e-6, rtol=1e-4)


def test_resume_is_bitwise(recipe, tmp_path):
    """Four steps at once equal two, a stop, and two more; so do the figures that are logged."""
    whole = load_file(run(recipe(f"output={tmp_path / 'whole'}")) / "trained.safetensors")
    part = recipe(f"output={tmp_path / 'part'}")
    output = run(part)
    (output / "trained.safetensors").unlink()
    shutil.rmtree(output / "checkpoint-4")
    resumed = load_file(run(part, resume=True) / "trained.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
    one, two = (
        json.loads((tmp_path / name / "checkpoint-4/trainer_state.json").read_text())["log_history"]
        for name in ("whole", "part")
    )
    assert [entry["lm_loss"] for entry in one] == [entry["lm_loss"] for entry in two] and len(one) == 4


def test_cached_and_uncached_features_train_alike(recipe, tmp_path):
    """The cache holds bfloat16, so losses agree to its precision, not to the bit."""
    losses = []
    for cached in (True, False):
        output = run(recipe(f"data.cache_features={str(cached).lower()}", f"output={tmp_path / str(cached)}"))
        losses.append(json.loads((output / "run.json").read_text())["figures"]["train_loss"])
    assert losses[0] == pytest.approx(losses[1], abs=2e-2)


def test_blind_run_sees_no_picture(recipe, data, tmp_path, picture):
    first = load_file(run(recipe("data.zero_images=true", f"output={tmp_path / 'a'}")) / "trained.safetensors")
    for i in range(8):
        picture(i + 100).save(data / f"images/{i}.png")
    second = load_file(run(recipe("data.zero_images=true", f"output={tmp_path / 'b'}")) / "trained.safetensors")
    assert all(torch.equal(first[name], second[name]) for name in first)


def test_logs_weights_per_source(recipe, tmp_path):
    output = run(recipe())
    history = json.loads((output / "checkpoint-4/trainer_state.json").read_text())["log_history"]
    keys = {key for entry in history for key in entry}
    assert {"weights/even/1", "weights/odd/2", "aux_loss"} <= keys
    for entry in history:
        if "weights/even/1" in entry:
            assert entry["weights/even/1"] + entry["weights/even/2"] == pytest.approx(1, abs=1e-3)


@pytest.fixture
def held_out(data):
    """Three samples that are not trained on: two of one source, one without a picture."""
    entries = json.loads((data / "data.json").read_text())
    chosen = [entries[0], entries[2], entries[-1]]
    (data / "held-out.json").write_text(json.dumps(chosen))
    return data / "held-out.json"


def test_validation_loss_is_the_mean_over_tokens(recipe, held_out):
    """In all and per source, at steps and at the end; the same as scored by hand on the finished model."""
    output = run(recipe(f"data.validation={held_out}", "optim.eval_steps=2", "data.cache_features=false"))
    history = json.loads((output / "checkpoint-4/trainer_state.json").read_text())["log_history"]
    assert [entry["step"] for entry in history if "eval_loss" in entry] == [2, 4]
    figures = json.loads((output / "run.json").read_text())["figures"]
    model, processor = load(output)
    sums = {}
    for record in read_records(held_out):
        dataset = ChatDataset([record], processor)
        batch = Collator(processor)([dataset[0]])
        inputs = {k: v for k, v in batch.items() if torch.is_tensor(v)}
        tokens = int((inputs["labels"] != -100).sum())
        with torch.no_grad():
            loss = model(**inputs).loss.item() * tokens
        total, count = sums.get(record.source, (0.0, 0))
        sums[record.source] = total + loss, count + tokens
    assert figures["eval_tokens"] == sum(count for _, count in sums.values())
    for source, (total, count) in sums.items():
        assert figures[f"eval_loss/{source}"] == pytest.approx(total / count, abs=1e-4)
    whole = sum(total for total, _ in sums.values()) / figures["eval_tokens"]
    assert figures["eval_loss"] == pytest.approx(whole, abs=1e-4)


def test_validation_leaves_training_alone(recipe, held_out, tmp_path):
    plain = load_file(run(recipe(f"output={tmp_path / 'plain'}", "export=false")) / "trained.safetensors")
    watched = recipe(
        f"output={tmp_path / 'watched'}", f"data.validation={held_out}", "optim.eval_steps=1", "export=false"
    )
    after = load_file(run(watched) / "trained.safetensors")
    assert all(torch.equal(plain[name], after[name]) for name in plain)


def test_parts_of_the_loss_are_logged(recipe):
    output = run(recipe("optim.micro_batch_size=1", "export=false"))
    history = json.loads((output / "checkpoint-4/trainer_state.json").read_text())["log_history"]
    entries = [entry for entry in history if "loss" in entry]
    assert len(entries) == 4
    for entry in entries:
        assert entry["loss"] == pytest.approx(entry["lm_loss"] + entry.get("aux_loss", 0), abs=2e-4)
        for name, value in entry.items():
            if name.startswith("entropy/"):
                assert 0 <= value <= 0.6932  # ln 2


def test_curves_go_to_tensorboard(recipe):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    output = run(recipe("log_to=[tensorboard]", "export=false"))
    (events,) = output.rglob("events.out.tfevents*")
    curves = EventAccumulator(str(events))
    curves.Reload()
    assert {"train/loss", "train/aux_loss", "train/weights/even/1"} <= set(curves.Tags()["scalars"])


def test_a_tracker_that_is_missing_is_named_first(recipe, monkeypatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(UserError, match="log_to=trackio needs the package trackio: pip install trackio"):
        run(recipe("log_to=[trackio]"))


def test_run_json_says_what_was_decided(recipe, tmp_path, capsys):
    output = run(recipe(), name="somewhere.yaml", overrides=["optim.max_steps=4"])
    told = json.loads((output / "run.json").read_text())
    assert told["trained"] == ["fusion", "projector", "text"]
    assert told["recipe_name"] == "somewhere.yaml" and told["overrides"] == ["optim.max_steps=4"]
    assert told["learning_rates"] == {"fusion": 1e-3, "projector": 1e-3, "text": 1e-3}
    assert told["versions"]["torch"] == torch.__version__ and told["recipe"]["optim"]["seed"] == 0
    (digest,) = told["data"]["sha256"].values()
    assert len(digest) == 64
    printed = capsys.readouterr().out
    assert "overridden           optim.max_steps=4" in printed and "the rest is frozen" in printed


def test_trained_names_the_parts(recipe):
    settings = recipe("trained=[fusion, vision]", "lora.rank=0", "data.cache_features=false")
    model, _ = build_from_recipe(settings)
    set_trainable(model, settings)
    assert trainable(model) == {"fusion", "vision_tower"}


def test_frozen_parts_in_bfloat16_trained_ones_in_float32(recipe):
    settings = recipe("model.dtype=bfloat16", "export=false")
    model, _ = build_from_recipe(settings)
    set_trainable(model, settings)
    kinds = {parameter.requires_grad: parameter.dtype for parameter in model.parameters()}
    assert kinds == {True: torch.float32, False: torch.bfloat16}
    output = run(settings)
    assert all(value.dtype == torch.float32 for value in load_file(output / "trained.safetensors").values())


def test_gradient_checkpointing_changes_no_weight(recipe, tmp_path):
    options = ("export=false", "data.cache_features=false")
    plain = load_file(run(recipe(*options, f"output={tmp_path / 'plain'}")) / "trained.safetensors")
    saving = recipe(*options, "optim.gradient_checkpointing=true", f"output={tmp_path / 'saving'}")
    after = load_file(run(saving) / "trained.safetensors")
    for name, value in plain.items():
        torch.testing.assert_close(after[name], value, atol=1e-6, rtol=1e-5)


def test_packing_trains_the_same(recipe, tmp_path):
    """Packed or padded: the same steps, within rounding."""
    options = ("export=false", "data.cache_features=false")
    padded = load_file(run(recipe(*options, f"output={tmp_path / 'padded'}")) / "trained.safetensors")
    packed = recipe(*options, "data.pack_tokens=2048", f"output={tmp_path / 'packed'}")
    after = load_file(run(packed) / "trained.safetensors")
    for name, value in padded.items():
        torch.testing.assert_close(after[name], value, atol=2e-5, rtol=1e-4)


def test_several_files_are_one_data_set(recipe, data, held_out):
    output = run(recipe(f"data.train=[{data / 'data.json'}, {held_out}]", "export=false"))
    told = json.loads((output / "run.json").read_text())["data"]
    assert told["samples"] == 12 and len(told["sha256"]) == 2


def test_streamed_shards(recipe, data, tmp_path):
    """A run over tar shards; stopping and going on gives the same weights."""
    import shutil as files
    import tarfile

    entries = json.loads((data / "data.json").read_text())[:8]
    for shard in range(2):
        with tarfile.open(tmp_path / f"shard-{shard}.tar", "w") as tar:
            for i, entry in enumerate(entries[shard * 4 : shard * 4 + 4]):
                text = tmp_path / "entry.json"
                text.write_text(json.dumps({k: v for k, v in entry.items() if k != "image"}))
                tar.add(text, f"s{shard}{i}.json")
                tar.add(data / entry["image"], f"s{shard}{i}.png")
    source = str(tmp_path / "shard-{0..1}.tar")
    options = ("data.cache_features=false", "export=false", "optim.workers=2")
    settings = recipe(f"data.train='{source}'", *options)
    whole = load_file(run(settings) / "trained.safetensors")
    output = tmp_path / "run"
    (output / "trained.safetensors").unlink()
    files.rmtree(output / "checkpoint-4")
    after = load_file(run(settings, resume=True) / "trained.safetensors")
    assert all(torch.equal(whole[name], after[name]) for name in whole)
    assert json.loads((output / "run.json").read_text())["data"]["streamed"]
    with pytest.raises(UserError, match=r"set optim\.max_steps"):
        run(recipe(f"data.train='{source}'", *options, "optim.max_steps=-1", f"output={tmp_path / 'other'}"))


def test_non_finite_loss_stops_with_the_sample(recipe, monkeypatch):
    from igva.train import run as module

    build = module.build_from_recipe

    def broken(settings):
        model, processor = build(settings)
        with torch.no_grad():
            model.model.projector.linear_2.bias.fill_(float("nan"))
        return model, processor

    monkeypatch.setattr(module, "build_from_recipe", broken)
    with pytest.raises(UserError, match=r"loss is nan at step 0 on the samples .*s\d"):
        run(recipe())


ALIGN = ("stage=align", "model.fusion=mean", "model.fusion_kwargs={num_groups: 2}", "lora.rank=0")


def test_warm_up_learns_the_cells(recipe, data):
    """Whatever the picture, its cells are red, blue, cat, dog: the projector finds their words."""
    settings = recipe(
        *ALIGN,
        f"data.cells={data / 'cells.json'}",
        "warm_up.steps=150",
        "warm_up.batch_size=4",
        "warm_up.learning_rate=1e-2",
    )
    model, processor = build_from_recipe(settings)
    before = model.model.language_model.embed_tokens.weight.clone()
    set_trainable(model, settings)
    figures = warm_up(model, settings, CellTask(model, processor, settings, LayerCache(model, processor)))
    assert figures["warm_up_cells_right"] > 0.8  # chance 25 %
    assert torch.equal(before, model.model.language_model.embed_tokens.weight)


BAD = {
    "data.train=nowhere.json": "does not exist",
    "data.image_root=nowhere": "image folder",
    "model.init_from=nowhere": "run the stage before this one",
    "model.init_from=embedded:tiny": "does not fit this model",  # which has other sizes
    "model.fusion=igwa": "there is no fusion 'igwa'",
    "model.fusion_kwargs={num_grups: 2}": "did you mean 'num_groups'",
    "model.fusion_kwargs={groups: [[1, 30]]}": "layer 30 does not exist",
    "model.fusion_kwargs={groups: [[1, 2], [2, 3]]}": "overlap",
    "model.vision=embedded:eyes": "there is no embedded:eyes",
    "data.max_length=3": "would cut image tokens|no token is left to learn",
}


@pytest.mark.parametrize("override", BAD)
def test_bad_settings_write_nothing(recipe, override, tmp_path):
    with pytest.raises(UserError, match=BAD[override]) as caught:
        run(recipe(override))
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "run" / "trained.safetensors").exists()


def test_finished_output_is_not_overwritten(recipe):
    run(recipe())
    with pytest.raises(UserError, match="holds a finished run"):
        run(recipe())


def test_a_run_goes_on_from_an_earlier_one(recipe, tmp_path):
    first = run(recipe("optim.max_steps=2"))
    kept = run(recipe("optim.max_steps=0", f"model.init_from={first}", f"output={tmp_path / 'kept'}"))
    assert json.loads((kept / "run.json").read_text())["inherited"] == {"fusion, language model, projector": str(first)}
    before, after = (read_trained(folder / TRAINED_FILE)[0] for folder in (first, kept))
    assert before.keys() == after.keys() and any(name.endswith("lora_B") for name in after)
    assert all(torch.equal(before[name], after[name]) for name in before)
    models = [load(folder)[0].state_dict() for folder in (first, kept)]
    assert all(torch.equal(models[0][name], models[1][name]) for name in models[0])
    whole = run(recipe("optim.max_steps=0", "lora.rank=0", f"model.init_from={first}", f"output={tmp_path / 'whole'}"))
    assert all(torch.equal(value, models[0][name]) for name, value in load(whole)[0].state_dict().items())
    with pytest.raises(UserError, match="other adapters"):
        run(recipe("lora.rank=1", f"model.init_from={first}", f"output={tmp_path / 'other'}"))


def test_resuming_a_finished_warm_up_keeps_it(recipe, data):
    """It has no checkpoints to go on from: what it learnt must not be replaced by a projector that learnt nothing."""
    settings = recipe(
        *ALIGN,
        f"data.cells={data / 'cells.json'}",
        "warm_up.steps=2",
        "optim.max_steps=0",
    )
    trained = run(settings) / "trained.safetensors"
    written, learnt = trained.read_bytes(), load_file(trained)
    with pytest.raises(UserError, match="holds a finished run"):
        run(settings, resume=True)
    assert trained.read_bytes() == written
    trained.unlink()  # killed just before it was written
    run(settings, resume=True)
    again = load_file(trained)  # tensors, not bytes: safetensors writes its metadata in any order
    assert again.keys() == learnt.keys() and all(torch.equal(again[name], learnt[name]) for name in learnt)


def test_sources_may_be_left_out(recipe, data):
    entries = json.loads((data / "data.json").read_text())
    for number, entry in enumerate(entries):
        entry["source"] = "told" if number % 2 else "asked"
    (data / "data.json").write_text(json.dumps(entries))
    output = run(recipe("data.leave_out=[told]", "optim.max_steps=0", "export=false"))
    assert json.loads((output / "run.json").read_text())["data"]["samples"] == (len(entries) + 1) // 2
    with pytest.raises(UserError, match=r"names 'sung': the data has asked, told"):
        run(recipe("data.leave_out=[sung]"))
    with pytest.raises(UserError, match="leaves nothing to learn"):
        run(recipe("data.leave_out=[told, asked]"))


def test_merged_conversations_are_one_sample(recipe, data):
    entries = json.loads((data / "data.json").read_text())
    for entry in entries[:4]:
        entry["image"] = entries[0]["image"]
    (data / "data.json").write_text(json.dumps(entries))
    output = run(recipe("data.merge_turns=32", "export=false"))
    assert json.loads((output / "run.json").read_text())["data"]["samples"] == len(entries) - 3

"""A whole run on random parts: what is trained, what is written, how it goes on, and what it refuses."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file

from igva.answering import answer, load
from igva.errors import UserError
from igva.train.feature_cache import LayerCache
from igva.train.run import build_from_recipe, run
from igva.train.stages import set_trainable
from igva.train.warmup import warm_up


def trainable(model):
    return {name.split(".")[1] for name, p in model.named_parameters() if p.requires_grad}


def test_align_trains_the_projector_only(recipe):
    settings = recipe("stage=align", "model.fusion=mean", "model.fusion_kwargs={num_groups: 2}", "lora.rank=0")
    model, _ = build_from_recipe(settings)
    set_trainable(model, settings)
    assert trainable(model) == {"projector"}


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
    """Four steps at once equal two, a stop, and two more."""
    whole = load_file(run(recipe(f"output={tmp_path / 'whole'}")) / "trained.safetensors")
    part = recipe(f"output={tmp_path / 'part'}")
    output = run(part)
    (output / "trained.safetensors").unlink()
    shutil.rmtree(output / "checkpoint-4")
    resumed = load_file(run(part, resume=True) / "trained.safetensors")
    assert whole.keys() == resumed.keys()
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)


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


def test_warm_up_learns_the_cells(recipe, data):
    """Whatever the picture, its cells are red, blue, cat, dog: the projector finds their words."""
    settings = recipe(
        "stage=align",
        "model.fusion=mean",
        "model.fusion_kwargs={num_groups: 2}",
        "lora.rank=0",
        f"data.cells={data / 'cells.json'}",
        "warm_up.steps=150",
        "warm_up.batch_size=4",
        "warm_up.learning_rate=1e-2",
    )
    model, processor = build_from_recipe(settings)
    before = model.model.language_model.embed_tokens.weight.clone()
    set_trainable(model, settings)
    figures = warm_up(model, processor, settings, LayerCache(model, processor))
    assert figures["warm_up_cells_right"] > 0.8  # chance 25 %
    assert torch.equal(before, model.model.language_model.embed_tokens.weight)


BAD = {
    "data.train=nowhere.json": "does not exist",
    "data.image_root=nowhere": "image folder",
    "model.init_from=nowhere": "run the stage before this one",
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

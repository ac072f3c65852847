"""Losses and gradients, HF ``Trainer``, PEFT, gradient checkpointing, ``torch.compile``."""

from __future__ import annotations

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model
from torch import nn
from transformers import Trainer, TrainingArguments

from igva.model.fusions import fusion_names
from igva.testing import ENSEMBLE, TOWERS


@pytest.fixture
def training_batch(user, encode, picture):
    """``training_batch(processor)`` → inputs with labels: 0, 1 and 2 pictures, of different lengths."""

    def build(processor):
        chats = [
            [
                *user(f"What is number {i}?" + "?" * i, *(picture(i + j) for j in range(i))),
                {"role": "assistant", "content": f"It is {i}."},
            ]
            for i in range(3)
        ]
        inputs = encode(processor, chats, add_generation_prompt=False, padding_side="right")
        labels = inputs["input_ids"].clone()
        labels[:, :-12] = -100
        labels[inputs["attention_mask"] == 0] = -100
        labels[labels == processor.image_token_id] = -100
        return {**inputs, "labels": labels}

    return build


def gradients(model):
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


def backward(model, batch):
    model.zero_grad()
    loss = model(**batch).loss
    loss.backward()
    return loss.detach(), gradients(model)


@pytest.mark.parametrize("fusion", fusion_names())
def test_logits_only_where_supervised_give_the_same_loss(fusion, make, training_batch):
    model, processor = make(fusion)
    batch = training_batch(processor)
    full = model(**batch)
    part = model(**batch, supervised_logits_only=True)
    targets = batch["labels"][:, 1:] != -100
    assert part.logits.shape == (1, int(targets.sum()), 260)
    torch.testing.assert_close(part.logits[0], full.logits[:, :-1][targets], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(part.loss, full.loss, atol=1e-6, rtol=1e-6)
    by_hand = nn.functional.cross_entropy(full.logits[:, :-1].flatten(0, 1), batch["labels"][:, 1:].flatten())
    torch.testing.assert_close(full.loss, by_hand, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("only", [False, True])
def test_the_loss_of_accumulated_batches_is_over_all_their_tokens(only, make, training_batch):
    model, processor = make()
    batch = training_batch(processor)
    count = int((batch["labels"][:, 1:] != -100).sum())
    mean = model(**batch).loss
    scaled = model(**batch, num_items_in_batch=torch.tensor(4 * count), supervised_logits_only=only).loss
    torch.testing.assert_close(scaled, mean / 4, atol=1e-6, rtol=1e-6)


def test_logits_to_keep(make, training_batch):
    model, processor = make()
    batch = training_batch(processor)
    del batch["labels"]
    with torch.no_grad():
        full = model(**batch).logits
        for keep, expected in ((1, full[:, -1:]), (torch.tensor([0, 5]), full[:, [0, 5]])):
            torch.testing.assert_close(model(**batch, logits_to_keep=keep).logits, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("fusion", fusion_names())
def test_the_auxiliary_loss_is_added_in_training_only(fusion, make, training_batch):
    model, processor = make(fusion)
    batch = training_batch(processor)
    model.model.instruction_encoder.requires_grad_(False)
    asleep, awake = model.eval()(**batch), model.train()(**batch)
    if awake.aux_loss is None:
        torch.testing.assert_close(awake.loss, asleep.loss)
    else:
        assert awake.aux_loss.abs() > 1e-4
        torch.testing.assert_close(awake.loss, asleep.loss + awake.aux_loss, atol=1e-6, rtol=1e-6)
    assert (fusion == "igva") <= (awake.aux_loss is not None)


@pytest.mark.parametrize("tower", [*TOWERS, ENSEMBLE])
@pytest.mark.parametrize("unfrozen", [False, True])
@pytest.mark.parametrize(
    "options", [{}, {"gradient_checkpointing_kwargs": {"use_reentrant": False}}], ids=["default", "non-reentrant"]
)
def test_gradient_checkpointing_changes_nothing(tower, unfrozen, options, make, training_batch):
    model, processor = make("igva", tower)
    batch = training_batch(processor)
    model.model.vision_tower.requires_grad_(unfrozen)
    model.model.instruction_encoder.requires_grad_(False)
    model.train()
    loss, expected = backward(model, batch)
    assert any(name.startswith("model.vision_tower") for name in expected) == unfrozen
    model.gradient_checkpointing_enable(**options)
    again, got = backward(model, batch)
    torch.testing.assert_close(again, loss, atol=1e-6, rtol=1e-6)
    assert got.keys() == expected.keys()
    for name in expected:
        torch.testing.assert_close(got[name], expected[name], atol=1e-6, rtol=1e-4, msg=name)


@pytest.mark.parametrize("fusion", fusion_names())
def test_gradients_reach_every_part_that_is_used(fusion, make, training_batch):
    model, processor = make(fusion)
    _, got = backward(model.train(), training_batch(processor))
    parts = ["model.projector.", "model.language_model.", "lm_head", "model.vision_tower."]
    if model.model.fusion.needs_instruction:
        parts += ["model.instruction_encoder."]
    for part in parts:
        assert any(name.startswith(part) and grad.abs().max() > 0 for name, grad in got.items()), part
    for name, _ in model.model.fusion.named_parameters():
        assert f"model.fusion.{name}" in got, name


@pytest.mark.parametrize("fusion", fusion_names())
def test_one_trainer_step(fusion, make, training_batch, tmp_path):
    model, processor = make(fusion)
    batch = training_batch(processor)
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("model.fusion", "model.projector")))
    before = copy.deepcopy(model.state_dict())
    arguments = TrainingArguments(
        output_dir=str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=3,
        learning_rate=1e-2,
        report_to=[],
        use_cpu=True,
        remove_unused_columns=False,
        save_strategy="no",
        disable_tqdm=True,
        logging_steps=1,
    )
    trainer = Trainer(model, arguments, train_dataset=[{"row": i} for i in range(6)], data_collator=lambda _: batch)
    result = trainer.train()
    assert result.training_loss > 0 and torch.isfinite(torch.tensor(result.training_loss))
    losses = [entry["loss"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[1] < losses[0]
    trained = {n for n, p in model.named_parameters() if p.requires_grad}
    changed = {n for n, value in model.state_dict().items() if not torch.equal(value.cpu(), before[n])}
    assert changed <= trained
    assert any(n.startswith("model.projector") for n in changed)
    assert any(n.startswith("model.fusion") for n in changed) == any(n.startswith("model.fusion") for n in trained)


LORA_TARGETS = r".*language_model.*\.(q_proj|v_proj)"


def test_lora_under_the_language_model(make, training_batch, tmp_path):
    model, processor = make()
    batch = training_batch(processor)
    base = copy.deepcopy(model)
    lora = get_peft_model(model, LoraConfig(r=4, target_modules=LORA_TARGETS, modules_to_save=["projector"]))
    adapted = {name for name, p in lora.named_parameters() if "lora_" in name}
    assert len(adapted) == 2 * 2 * 2 and all(".language_model." in name for name in adapted)
    optimizer = torch.optim.SGD([p for p in lora.parameters() if p.requires_grad], lr=0.5)
    for _ in range(2):
        loss = lora(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    lora.eval()
    with torch.no_grad():
        expected = lora(**batch).logits
        assert not torch.allclose(expected, base(**batch).logits, atol=1e-3)
    lora.save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base, tmp_path).eval()
    with torch.no_grad():
        torch.testing.assert_close(loaded(**batch).logits, expected, atol=1e-5, rtol=1e-5)
        merged = loaded.merge_and_unload()
        torch.testing.assert_close(merged(**batch).logits, expected, atol=1e-4, rtol=1e-4)


def test_generation_of_a_lora_model(make, user, encode, picture):
    model, processor = make()
    inputs = encode(processor, user("What?", picture()))
    expected = model.generate(**inputs, max_new_tokens=4, do_sample=False)
    lora = get_peft_model(model, LoraConfig(r=4, target_modules=LORA_TARGETS))  # starts as the base model
    assert torch.equal(lora.generate(**inputs, max_new_tokens=4, do_sample=False), expected)


def as_traced(graph, example_inputs):
    """Runs what was traced as it is: what code a graph becomes is torch's affair."""
    return graph.forward


COMPILED = ("igva", "deepstack", "mol_hybrid")  # by question, inside the language model, by patch; the rest as slow


@pytest.mark.parametrize(
    "fusion", [name if name in COMPILED else pytest.param(name, marks=pytest.mark.slow) for name in fusion_names()]
)
def test_compiled_logits_are_the_same(fusion, make, user, encode, picture):
    model, processor = make(fusion)
    inputs = encode(processor, [user("What?", picture(1)), user("Which one of them?", picture(2), picture(3))])
    with torch.no_grad():
        expected = model(**inputs)
        torch.compiler.reset()
        compiled = torch.compile(model, backend=as_traced)
        for _ in range(2):
            out = compiled(**inputs)
            torch.testing.assert_close(out.logits, expected.logits, atol=1e-5, rtol=1e-5)
    torch.compiler.reset()


@pytest.mark.slow
def test_inductor_logits_are_the_same(make, user, encode, picture):
    model, processor = make()
    inputs = encode(processor, user("What?", picture(1)))
    with torch.no_grad():
        expected = model(**inputs).logits
        torch.compiler.reset()
        out = torch.compile(model)(**inputs)
    torch.testing.assert_close(out.logits, expected, atol=1e-4, rtol=1e-4)
    torch.compiler.reset()


@pytest.mark.parametrize("called_before", [False, True])
def test_a_tower_compiled_by_itself_is_refused_or_right(called_before, make, user, encode, picture):
    """Torch drops hooks that are put on after compilation without a word; we must not."""
    model, processor = make()
    inputs = encode(processor, user("What?", picture(1)))
    with torch.no_grad():
        expected = model(**inputs).logits
        torch.compiler.reset()
        model.model.vision_tower.compile(backend=as_traced)
        if called_before:
            model.model.vision_tower(inputs["pixel_values"])  # compiled without hooks
        for _ in range(2):
            try:
                logits = model(**inputs).logits
            except RuntimeError as error:
                assert called_before and "compile the whole model" in str(error)
            else:
                torch.testing.assert_close(logits, expected, atol=1e-5, rtol=1e-5)
    torch.compiler.reset()


def test_frozen_encoders_keep_their_dropout_off(make, training_batch):
    model, processor = make()
    batch = training_batch(processor)
    assert model.config.instruction_config.hidden_dropout_prob > 0
    model.model.instruction_encoder.requires_grad_(False)
    expected = model.eval()(**batch).fusion_weights
    model.train()
    assert model.model.language_model.training and model.model.fusion.training
    assert torch.equal(model(**batch).fusion_weights, expected)
    assert model.model.vision_tower.training  # not frozen
    model.model.instruction_encoder.requires_grad_(True)
    model.train()
    assert not torch.equal(model(**batch).fusion_weights, expected)
    model.eval()
    assert not any(module.training for module in model.modules())

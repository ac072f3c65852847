"""The allocator learns from questions before the language model does, and the log says how far they move it."""

import json

import pytest
import torch

from igva.checkpoints.trained import TRAINED_FILE
from igva.data.records import Record
from igva.errors import UserError
from igva.model.fusion_base import FusionOutput
from igva.train.allocator_warmup import closed_questions
from igva.train.guidance import GuidanceProbe, guidance
from igva.train.run import run


def record(*turns, images=1, source="a", **extra):
    chat = []
    for question, answer in turns:
        chat += [
            {"role": "user", "content": [{"type": "image", "image": None}, {"type": "text", "text": question}]},
            {"role": "assistant", "content": [{"type": "text", "text": answer}]},
        ]
    return Record("id", chat, tuple(f"{n}.png" for n in range(images)), source, extra)


def test_which_questions_have_answers_to_choose_among():
    long = "it is a red one on a table"
    asked = [
        record(("What?\nAnswer the question using a single word or phrase.", "cat"), ("Red?", "no"), ("Tell me", long)),
        record(("What is it?", "cat"), ("Red?", "no"), ("Which?", "once")),
        record(("What is it?", "cat"), images=2),
        record(("What is it?", "cat"), imagined={"class": 3, "share": 1.0, "cells": [0]}),
        record(("Tell me", long)),
    ]
    found = closed_questions(asked, "<image>", least=2)
    assert [(each.question, each.answer) for each in found] == [
        ("What?", "cat"),
        ("Red?", "no"),
        ("What is it?", "cat"),
        ("Red?", "no"),
    ]
    assert len(closed_questions(asked, "<image>", least=1)) == 5


@pytest.fixture
def asked(data):
    """Two questions about each picture, of two tasks, each answer given more than once."""
    entries = [
        {
            "id": f"{task}{number}",
            "image": f"images/{number}.png",
            "task": task,
            "conversations": [{"from": "human", "value": f"<image>\n{question}"}, {"from": "gpt", "value": answer}],
        }
        for number in range(8)
        for task, question, answer in (
            ("half", "Which half?", "first" if number < 4 else "second"),
            ("even", "Is it even?", "yes" if number % 2 == 0 else "no"),
        )
    ]
    (data / "data.json").write_text(json.dumps(entries))


def told(output):
    return json.loads((output / "run.json").read_text())["figures"]


def weights(output):
    from safetensors.torch import load_file

    return load_file(output / TRAINED_FILE)


def test_it_learns_the_answers_and_touches_the_fusion_alone(recipe, asked, tmp_path):
    common = ("optim.max_steps=0", "export=false", "model.fusion_kwargs.balance_coef=0")
    before = weights(run(recipe(*common, f"output={tmp_path / 'before'}")))
    allocator = ("allocator.steps=120", "allocator.batch_size=16", "allocator.learning_rate=3e-3")
    output = run(recipe(*common, *allocator, f"output={tmp_path / 'after'}"))
    after = weights(output)
    assert told(output)["allocator_warm_up_right"] > 0.9
    assert 0 < told(output)["allocator_warm_up_guidance"] <= 1
    changed = {name for name in after if not torch.equal(before[name], after[name])}
    assert before.keys() == after.keys() and changed
    assert all("fusion" in name for name in changed)


def test_the_blind_control_sees_no_picture(recipe, asked):
    """The digit's half cannot be told then, nor whether it is even: half of the answers are right by chance."""
    options = ("optim.max_steps=0", "export=false", "data.zero_images=true", "allocator.steps=120")
    output = run(recipe(*options, "allocator.batch_size=16", "allocator.learning_rate=3e-3"))
    assert told(output)["allocator_warm_up_right"] < 0.75


@pytest.mark.parametrize("bad", [None, b"no picture"])
def test_questions_about_bad_pictures_are_left_out(bad, recipe, asked, data):
    picture = data / "images/3.png"
    picture.unlink() if bad is None else picture.write_bytes(bad)
    output = run(recipe("optim.max_steps=0", "export=false", "data.on_bad_image=skip", "allocator.steps=3"))
    assert told(output)["allocator_warm_up_loss"] > 0


def test_a_run_that_goes_on_does_not_begin_with_it_again(recipe, asked, tmp_path):
    options = ("allocator.steps=3", "optim.batch_size=4", "optim.save_steps=1", f"output={tmp_path / 'run'}")
    first = told(run(recipe(*options, "optim.max_steps=2")))
    state = json.loads((tmp_path / "run/checkpoint-2/trainer_state.json").read_text())
    assert first["allocator_warm_up_loss"] > 0 and state["global_step"] == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data.cache_features=false"], "reads cached features: set data.cache_features=true"),
        (["trained=[projector]"], "add fusion to trained"),
        (["allocator.least=0"], "allocator.least is 0: 1 or more is expected"),
    ],
)
def test_settings_that_do_not_fit(options, message, recipe, asked):
    with pytest.raises(UserError, match=message):
        recipe("allocator.steps=3", *options)


def test_what_it_cannot_learn_from(recipe, asked, tmp_path):
    with pytest.raises(UserError, match=r"fusion 'mean' reads no question: set allocator\.steps=0"):
        run(recipe("allocator.steps=3", "model.fusion=mean", "model.fusion_kwargs={}", "model.instruction=null"))
    with pytest.raises(UserError, match=r"come more than once: set allocator\.steps=0"):
        run(recipe("allocator.steps=3", "allocator.least=99", f"output={tmp_path / 'other'}"))


# --- guidance -------------------------------------------------------------------------------------------------------


class Asks(torch.nn.Module):
    """Weights that are the question itself."""

    def forward(self, layers, instruction):
        return FusionOutput(features=layers, weights=instruction)


QUESTIONS = torch.tensor([[1.0, 0.0], [1.0, 0.0], [0.5, 0.5], [0.0, 1.0]])


def test_guidance_is_what_moves_with_a_question_of_another_source():
    measure = lambda sources: guidance(Asks(), None, QUESTIONS, QUESTIONS, sources)  # noqa: E731
    assert measure(["b", "a", "a", "a"]) == pytest.approx((0 + 0 + 0.5 + 1) / 4)  # 0 → 1, all others → 0
    assert measure(["a"] * 4) == pytest.approx((0 + 0.5 + 0.5 + 1) / 4)  # the next one
    assert guidance(Asks(), None, QUESTIONS[:1], QUESTIONS[:1], ["a"]) is None


def test_a_probe_keeps_only_what_is_wanted():
    fusion = Asks()
    probe = GuidanceProbe(fusion)
    fusion(None, QUESTIONS)
    assert probe.measure(["a"] * 4) is None
    probe.wanted = True
    fusion(None, instruction=QUESTIONS)
    assert probe.measure(["a"] * 4) == pytest.approx(0.5)
    assert probe.measure(["a"] * 4) is None


def test_the_log_tells_it(recipe, asked, tmp_path):
    output = run(recipe("optim.max_steps=2", "optim.batch_size=8", "optim.logging_steps=2", "optim.save_steps=2"))
    (logged,) = (
        entry
        for entry in json.loads((output / "checkpoint-2/trainer_state.json").read_text())["log_history"]
        if "loss" in entry
    )
    assert 0 < logged["guidance"] < 1

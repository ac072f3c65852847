"""What a visual token is taught to look like, and cells learnt beside the answers."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from igva.errors import UserError
from igva.testing import tiny_model, tiny_processor
from igva.train.cells import CellTask, word_embeddings
from igva.train.guidance import GuidanceProbe
from igva.train.run import run


def test_the_first_token_weighs_most() -> None:
    model = tiny_model()
    processor = tiny_processor(model)
    table = model.get_parameter("model.language_model.embed_tokens.weight").detach()
    words = ("saxophone", "red", "7")
    for word, vector in zip(words, word_embeddings(model, processor, words), strict=True):
        ids = processor.tokenizer(f" {word}", add_special_tokens=False)["input_ids"]
        if not processor.tokenizer.decode(ids[:1]).strip():  # a space by itself says nothing
            ids = ids[1:]
        weights = [0.5**place for place in range(len(ids))]
        wanted = sum(weight * table[token] for weight, token in zip(weights, ids, strict=True)) / sum(weights)
        assert torch.allclose(vector, wanted, atol=1e-6), word


def test_the_order_of_the_tokens_counts() -> None:
    model = tiny_model()
    processor = tiny_processor(model)
    one, other = word_embeddings(model, processor, ("48", "84"))
    assert not torch.allclose(one, other)


@pytest.fixture
def beside(recipe: Any, data: Path, tmp_path: Path) -> Any:
    """``beside("key=value", …)`` → a recipe that learns the cells in every step, with the question's own mixture."""
    options = (f"data.cells={data}/cells.json", "warm_up.beside=0.5", "warm_up.batch_size=4", "export=false")
    return lambda *overrides: recipe(*options, f"output={tmp_path / 'beside'}", *overrides)


def log_of(folder: Path, step: int) -> list[dict[str, Any]]:
    state = json.loads((folder / f"checkpoint-{step}/trainer_state.json").read_text())
    return [line for line in state["log_history"] if "lm_loss" in line]


def test_cells_are_learnt_beside_the_answers(beside: Any) -> None:
    log = log_of(run(beside("optim.max_steps=60", "optim.projector_lr=1e-2")), 60)
    assert log[-1]["cells_loss"] < log[0]["cells_loss"] / 2
    assert log[0]["cells_right"] < 0.6 < 0.9 < log[-1]["cells_right"]  # chance 25 %
    assert log[-1]["lm_loss"] < log[0]["lm_loss"]
    first = log[0]
    assert first["loss"] == pytest.approx(first["lm_loss"] + first["aux_loss"] + 0.5 * first["cells_loss"], abs=1e-3)


def test_guidance_is_that_of_the_steps_own_questions(beside: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The loss of cells asks the fusion about other pictures, after it was measured."""
    asked: list[int] = []
    measure = GuidanceProbe.measure
    monkeypatch.setattr(
        GuidanceProbe,
        "measure",
        lambda probe, sources: asked.append(len(probe._last[1])) or measure(probe, sources),  # type: ignore[index]
    )
    settings = ("optim.max_steps=2", "optim.batch_size=3", "optim.logging_steps=1", "warm_up.batch_size=4")
    log = log_of(run(beside(*settings)), 2)
    assert asked == [3, 3] and all(0 <= line["guidance"] <= 1 for line in log)


def test_a_resumed_run_draws_the_same_cells(beside: Any) -> None:
    output = run(beside())
    whole = load_file(output / "trained.safetensors")
    (output / "trained.safetensors").unlink()
    shutil.rmtree(output / "checkpoint-4")
    resumed = load_file(run(beside(), resume=True) / "trained.safetensors")
    assert whole.keys() == resumed.keys() and all(whole[name].equal(resumed[name]) for name in whole)


def test_a_step_in_micro_batches_learns_as_many_cells(beside: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    counts, draw = [], CellTask.beside

    def drawn(self: CellTask, instructions: Any, count: int, seed: str) -> Any:
        counts.append(count)
        return draw(self, instructions, count, seed)

    monkeypatch.setattr(CellTask, "beside", drawn)
    settings = ("optim.batch_size=2", "optim.micro_batch_size=1", "optim.max_steps=2", "warm_up.imagined=0")
    log = log_of(run(beside(*settings)), 2)
    assert set(counts) == {2}  # two parts of a step of four
    assert log[0]["loss"] == pytest.approx(
        log[0]["lm_loss"] + log[0]["aux_loss"] + 0.5 * log[0]["cells_loss"], abs=1e-3
    )


def test_a_run_is_gone_on_with_in_the_same_micro_batches(beside: Any) -> None:
    shutil.rmtree(run(beside()) / "checkpoint-4")
    with pytest.raises(UserError, match=r"optim\.micro_batch_size was None, now 1"):
        run(beside("optim.micro_batch_size=1"), resume=True)


@pytest.mark.parametrize(
    ("override", "said"),
    [
        ("data.cells=null", "warm_up needs cell labels"),
        ("data.cache_features=false", "warm_up.beside reads cached features: set data.cache_features=true"),
        ("distributed=fsdp", "set distributed=ddp, or warm_up.beside=0"),
        ("trained=[fusion,text]", "add projector to trained"),
        ("warm_up.beside=-1", "warm_up.beside is -1"),
    ],
)
def test_what_it_needs(override: str, said: str, beside: Any) -> None:
    with pytest.raises(UserError, match=said):
        beside(override)

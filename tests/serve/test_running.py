"""The batch that others join and leave says what each would get alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from igva.serve.running import Arrival, Entry, RunningBatch

from .conftest import stirred

QUESTIONS = ("What?", "Where is the old green chair of this room?", "Is it red?", "Read the sign, please.", "Why?")


def entry(model, processor, number):
    """A chat of no, one or two pictures."""
    raw = torch.randint(0, 256, (2, 28, 28, 3), generator=torch.Generator().manual_seed(number), dtype=torch.uint8)
    pictures = [Image.fromarray(each.numpy()) for each in raw[: number % 3]]
    content = [{"type": "image", "image": p} for p in pictures] + [{"type": "text", "text": QUESTIONS[number]}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    ids = inputs.pop("input_ids")
    inputs.pop("attention_mask")
    return Entry(number, ids[0].tolist(), model.get_image_features(**inputs) if pictures else None), ids, inputs


def join(batch, entries, most=7):
    """The prompts, a few tokens at a time → the logits of each one's first token."""
    arrival = Arrival(batch.model, entries)
    while (logits := arrival.advance(most)) is None:
        pass
    batch.admit(arrival)
    return logits


@pytest.mark.parametrize("kind", [{}, {"fusion": "deepstack", "fusion_kwargs": {"layers": [1, 2]}}])
@torch.no_grad()
def test_joining_and_leaving_changes_no_answer(kind):
    model, processor = stirred(**kind)
    model.generation_config.eos_token_id = None
    entries, alone = [], []
    for number in range(len(QUESTIONS)):
        made, ids, inputs = entry(model, processor, number)
        entries.append(made)
        new = model.generate(input_ids=ids, **inputs, max_new_tokens=8, do_sample=False)
        alone.append(new[0, ids.shape[1] :].tolist())
    assert len(set(map(tuple, alone))) > 2

    batch: RunningBatch[int] = RunningBatch(model)
    said: dict[int, list[int]] = {number: [] for number in range(len(QUESTIONS))}

    def note(logits, rows):
        for row, token in zip(rows, logits.argmax(-1).tolist(), strict=True):
            said[batch.who[row]].append(token)

    def step():
        note(batch.step([said[who][-1] for who in batch.who]), range(len(batch.who)))

    note(join(batch, entries[:1]), [0])
    step()
    note(join(batch, entries[2:4]), [1, 2])  # longer and shorter ones join
    step()
    step()
    batch.keep([1, 2])  # the first, which is not ready, leaves
    step()
    note(join(batch, [entries[1], entries[4]]), [2, 3])
    for _ in range(3):
        step()
    batch.keep([3, 0, 2])  # in another order
    assert batch.who == [4, 2, 1]
    step()
    for number, tokens in said.items():
        assert tokens == alone[number][: len(tokens)], number
    assert [len(said[number]) for number in (2, 1, 4)] == [8, 5, 5]

    batch.keep([])
    note(join(batch, [entries[0]]), [0])  # an empty batch starts anew
    assert said[0][-1] == alone[0][0]


@torch.no_grad()
def test_answers_to_one_prompt_are_read_as_one_row(small, monkeypatch):
    """And are rows of their own from then on."""
    model, processor = small
    one, *_ = entry(model, processor, 1)
    other, *_ = entry(model, processor, 2)
    entries = [one, replace(other, who=5), replace(one, who=6), replace(one, who=7)]
    alone = [join(RunningBatch(model), [each])[0] for each in entries]
    rows, forward = [], model.forward
    with monkeypatch.context() as patched:
        patched.setattr(model, "forward", lambda **inputs: rows.append(len(inputs["input_ids"])) or forward(**inputs))
        batch: RunningBatch[int] = RunningBatch(model)
        logits = join(batch, entries)
    assert set(rows) == {2} and batch.who == [1, 5, 6, 7]
    torch.testing.assert_close(logits, torch.stack(alone), atol=1e-4, rtol=1e-4)
    after = batch.step([3, 4, 5, 6])
    for row, (each, token) in enumerate(zip(entries, (3, 4, 5, 6), strict=True)):
        single: RunningBatch[int] = RunningBatch(model)
        join(single, [each])
        torch.testing.assert_close(after[row], single.step([token])[0], atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_the_batch_is_no_longer_than_it_has_to_be(small):
    model, processor = small
    long, *_ = entry(model, processor, 1)
    short, *_ = entry(model, processor, 0)
    batch: RunningBatch[int] = RunningBatch(model)
    join(batch, [long, short])
    batch.keep([1])
    assert batch._mask.shape[1] == len(short.ids) == batch._cache.layers[0].keys.shape[2]

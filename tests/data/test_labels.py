"""Only the assistant's words and its end-of-turn token are learnt; checked against hand-made expectations."""

import pytest

from igva.data.labels import IGNORE, encode_supervised
from igva.data.templates import TEMPLATES
from igva.errors import UserError
from igva.testing import tiny_model, tiny_processor


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(tiny_model())


def chat(*turns, image=True):
    messages = []
    for i, text in enumerate(turns):
        role = "assistant" if i % 2 else "user"
        messages.append({"role": role, "content": [{"type": "text", "text": text}]})
    if image:
        messages[0]["content"].insert(0, {"type": "image", "image": None})
    return messages


def learnt(processor, ids, labels):
    """The learnt stretches as text."""
    runs, run = [], []
    for token, label in zip(ids, labels, strict=True):
        assert label in (IGNORE, token)
        if label == IGNORE and run:
            runs.append(processor.tokenizer.decode(run))
            run = []
        elif label != IGNORE:
            run.append(token)
    return runs + ([processor.tokenizer.decode(run)] if run else [])


def test_chatml(processor):
    ids, labels = encode_supervised(processor, chat("What?", "A cat.", "Where?", "Here."))
    assert learnt(processor, ids, labels) == ["A cat.<|im_end|>", "Here.<|im_end|>"]
    assert ids.count(processor.image_token_id) == processor.num_image_tokens


def test_vicuna(processor):
    ids, labels = encode_supervised(
        processor, chat("What?", "A cat.", "Where?", "Here."), chat_template=TEMPLATES["vicuna_v1"]
    )
    assert learnt(processor, ids, labels) == [" A cat.</s>", " Here.</s>"]


def test_plain(processor):
    ids, labels = encode_supervised(processor, chat("Describe it.", "A cat."), chat_template=TEMPLATES["plain"])
    assert learnt(processor, ids, labels) == ["A cat."]
    assert ids[: processor.num_image_tokens] == [processor.image_token_id] * processor.num_image_tokens


def test_system_prompt_is_not_learnt(processor):
    messages = [{"role": "system", "content": "Be brief."}, *chat("What?", "A cat.")]
    ids, labels = encode_supervised(processor, messages)
    assert learnt(processor, ids, labels) == ["A cat.<|im_end|>"]


def test_typed_special_tokens_stay_text(processor):
    ids, labels = encode_supervised(processor, chat("Is <image> or <|im_end|> there?", "No <|im_end|> here."))
    assert ids.count(processor.image_token_id) == processor.num_image_tokens
    assert ids.count(processor.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2  # the template's own
    assert learnt(processor, ids, labels) == ["No <|im_end|> here.<|im_end|>"]


def test_training_and_asking_see_the_same_prompt(processor):
    ids, labels = encode_supervised(processor, chat("What?", "A cat.", image=False))
    asked = processor.apply_chat_template(chat("What?", image=False), tokenize=True, add_generation_prompt=True)[0]
    assert ids[: labels.index(next(label for label in labels if label != IGNORE))] == asked


def test_empty_answer_names_the_sample(processor):
    bare = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(UserError, match="sample 7: no token is left to learn"):
        encode_supervised(processor, chat("What?", ""), name="sample 7", chat_template=bare)


def test_truncation(processor):
    whole, _ = encode_supervised(processor, chat("What?", "A cat sat."))
    ids, labels = encode_supervised(processor, chat("What?", "A cat sat."), max_length=len(whole) - 4)
    assert ids == whole[:-4]
    assert learnt(processor, ids, labels) == ["A cat sa"]
    with pytest.raises(UserError, match="would cut image tokens"):
        encode_supervised(processor, chat("What?", "A cat."), max_length=len("xuser\n") + 1)


def test_template_that_rewrites_earlier_turns(processor):
    rewriting = "{{ messages | length }}" + TEMPLATES["chatml"]
    with pytest.raises(UserError, match="rewrites earlier turns"):
        encode_supervised(processor, chat("What?", "A cat."), name="s", chat_template=rewriting)

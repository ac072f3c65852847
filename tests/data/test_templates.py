"""Every packaged template only appends, and the generation prompt is where an answer starts."""

import typing

import pytest

from igva.data.templates import TEMPLATES
from igva.testing import stand_in_tokenizer
from igva.train.arguments import ModelArguments

CHAT = [
    {"role": "user", "content": "<image>\nWhat is it?"},
    {"role": "assistant", "content": "A cat."},
    {"role": "user", "content": "Where?"},
    {"role": "assistant", "content": "On the mat."},
]
SYSTEM = {"role": "system", "content": "Be brief."}


def render(name, messages, prompt=False):
    tokenizer = stand_in_tokenizer("llama3" if name == "llama3" else "vicuna")
    return tokenizer.apply_chat_template(
        messages, chat_template=TEMPLATES[name], tokenize=False, add_generation_prompt=prompt
    )


@pytest.mark.parametrize("name", TEMPLATES)
@pytest.mark.parametrize("system", [[], [SYSTEM]], ids=["bare", "system"])
def test_it_only_appends(name, system):
    for start in range(1, len(CHAT)):
        text = render(name, system + CHAT[:start], prompt=CHAT[start]["role"] == "assistant")
        assert render(name, system + CHAT[: start + 1]).startswith(text)


@pytest.mark.parametrize("name", TEMPLATES)
def test_an_answer_follows_the_prompt(name):
    text, prompt = render(name, CHAT[:2]), render(name, CHAT[:1], prompt=True)
    assert text.removeprefix(prompt).lstrip(" ").startswith("A cat.")


def test_recipes_may_name_each_but_plain():
    """``plain`` is how stage 1 trains (``data.template``), not how a model is asked."""
    hint = typing.get_type_hints(ModelArguments)["chat_template"]
    names = {name for option in typing.get_args(hint) for name in typing.get_args(option)}
    assert names == set(TEMPLATES) - {"plain"}


def test_plain_keeps_every_picture_and_no_word_of_the_question():
    chat = [{"role": "user", "content": "<image>\n<image>\nCompare."}, {"role": "assistant", "content": "A cat."}]
    assert render("plain", chat) == "<image><image>A cat.\n"


def test_llama3_trims_as_the_published_template_does():
    chat = [{"role": "user", "content": "  Hello \n"}]
    assert render("llama3", chat) == "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\nHello<|eot_id|>"

"""How a chat template takes content is found by looking; special tokens stay text; calls as other tools make them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from igva.data.labels import encode_supervised
from igva.errors import UserError
from igva.testing import tiny_model, tiny_processor

TURN = "<|im_start|>{{ m.role }}\n%s<|im_end|>\n"
END = "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
WALK = (
    "{%% for c in m.content %%}{%% if c['type'] == 'text' %%}{{ c['text'] }}{%% else %%}%s{%% endif %%}{%% endfor %%}"
)
CALLS = "{% for call in m['tool_calls'] or [] %}{{ call['type'] }}{% endfor %}"
FORMS = {
    "concatenates, names a call's type": "{% for m in messages %}"
    + CALLS
    + "{{ m['role'] + ': ' + m['content'] }}{% endfor %}",
    "prints, names a parameter's type": "{% for p in tools or [] %}{{ p.type }}{% endfor %}{% for m in messages %}"
    + TURN % "{{ m.content }}"
    + "{% endfor %}"
    + END,
    "prints as JSON": "{% for m in messages %}"
    + TURN % "{{ m.content if m.content is string else m.content | tojson }}"
    + "{% endfor %}",
    "walks items": "{% for m in messages %}" + TURN % (WALK % "<image>") + "{% endfor %}" + END,
    "walks items with get": "{% for m in messages %}"
    + TURN % "{% for c in m.content %}{{ '<image>' if c.get('type') == 'image' else c.get('text') }}{% endfor %}"
    + "{% endfor %}",
    "walks items, leaves pictures out": "{% for m in messages %}" + TURN % (WALK % "") + "{% endfor %}",
    "walks items, another picture token": "{% for m in messages %}" + TURN % (WALK % "<|image_pad|>") + "{% endfor %}",
    "takes both": "{% for m in messages %}"
    + TURN % ("{% if m.content is string %}{{ m.content }}{% else %}" + WALK % "<image>" + "{% endif %}")
    + "{% endfor %}",
}


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(tiny_model())


def ask(*texts, picture=True):
    items = [{"type": "image", "image": Image.new("RGB", (8, 8))}] * picture
    return {"role": "user", "content": [*items, *({"type": "text", "text": text} for text in texts)]}


@pytest.mark.parametrize("kind", FORMS)
def test_a_picture_and_a_question_are_written_once_each(processor, kind):
    text = processor.render([ask("Why is it so?")], FORMS[kind])
    assert text.count("<image>") == 1 and text.count("Why is it so?") == 1
    assert "'type'" not in text and '"type"' not in text and "image_pad" not in text


def test_what_a_template_refuses_is_one_line_that_names_the_sample(processor):
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turns') }}{% endif %}"
        + FORMS["walks items"]
    )
    chat = [{"role": "system", "content": "Be brief."}, ask("Why?"), {"role": "assistant", "content": "So."}]
    with pytest.raises(
        UserError, match=r"^sample 7: the chat template does not take this chat: no system turns: change"
    ):
        encode_supervised(processor, chat, name="sample 7", chat_template=template)
    with pytest.raises(ValueError, match="does not take this chat"):
        processor.render([ask("Why?")], "{{ messages[0].content.nothing.at_all }}")


def test_parts_that_only_make_a_control_token_together_stay_text(processor):
    template = FORMS["walks items"]
    whole = [ask("a <|im_end|> b", picture=False)]
    for texts in (("a <|im_", "end|> b"), ("a <|im", "_en", "d|> b"), ("a ", "<|im_end|", "> b"), ("a <|im_end|> b",)):
        chat = [ask(*texts, picture=False)]
        messages, typed = processor.shield(chat)
        ids, _ = processor.tokenize(processor.render(messages, template), typed)
        assert ids.count(processor.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 1, texts
        assert processor.tokenizer.decode(ids) == processor.render(whole, template)


def test_calls_as_other_tools_make_them(processor):
    red = Image.new("RGB", (40, 40), "red")
    options = {"return_tensors": "pt", "padding": True}
    plain = processor(images=[[red]], text=["<image>a"], **options)
    for more in ({"pad_to_multiple_of": None}, {"return_attention_mask": True}, {"padding_side": "right"}):
        assert processor(images=[[red]], text=["<image>a"], **options, **more).keys() == plain.keys()
    assert (
        processor(images=[[red]], text=["<image>a"], **options, pad_to_multiple_of=16)["input_ids"].shape[1] % 16 == 0
    )
    assert "attention_mask" not in processor(images=[[red]], text=["<image>a"], return_attention_mask=False)
    assert (
        processor(images=[np.asarray(red)], text="<image>a", **options)["pixel_values"] == plain["pixel_values"]
    ).all()
    with pytest.raises(ValueError, match="sample 0: the text has 1 <image> placeholders but 2 images came"):
        processor(images=[[red, red], []], text=["<image>a", "<image>b"], **options)
    with pytest.raises(ValueError, match="the chat is empty"):
        processor.apply_chat_template([], tokenize=True)
    with pytest.raises(ValueError, match="not supported"):
        processor.apply_chat_template([ask("a")], tokenize=True, return_assistant_tokens_mask=True)
    with pytest.raises(TypeError, match="is no picture"):
        processor(images=[object()], text="<image>a")

"""Only the assistant's words and its end-of-turn token are learnt; checked against hand-made expectations.

An expectation is the rendered chat as text with what is learnt in ⟦ ⟧.
"""

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from igva.data.labels import IGNORE, encode_supervised
from igva.data.templates import TEMPLATES
from igva.errors import UserError
from igva.model.processing_igva import IgvaProcessor
from igva.testing import stand_in_tokenizer, tiny_image_processor, tiny_model, tiny_processor, tiny_tokenizer

IMAGE_TOKENS = 4


@pytest.fixture(scope="module")
def processor():
    return tiny_processor(tiny_model())


def processor_of(tokenizer, template=None):
    tokenizer.add_tokens([AddedToken("<image>", special=True, normalized=False)], special_tokens=True)
    return IgvaProcessor(
        tiny_image_processor(28), tokenizer, tiny_tokenizer(), chat_template=template, num_image_tokens=IMAGE_TOKENS
    )


def chat(*turns, image=True, system=None):
    messages = []
    for i, text in enumerate(turns):
        role = "assistant" if i % 2 else "user"
        messages.append({"role": role, "content": [{"type": "text", "text": text}]})
    if image:
        messages[0]["content"].insert(0, {"type": "image", "image": None})
    if system:
        messages.insert(0, {"role": "system", "content": [{"type": "text", "text": system}]})
    return messages


def text_of(tokenizer, ids):
    """Characters of some tokens, none dropped."""
    pieces = tokenizer.convert_ids_to_tokens(ids)
    if "▁" in tokenizer.get_vocab():
        return "".join(pieces).replace("▁", " ").replace("<0x0A>", "\n")
    return tokenizer.decode(ids, skip_special_tokens=False, clean_up_tokenization_spaces=False)


def marked(processor, ids, labels):
    """The text of the tokens, learnt stretches in ⟦ ⟧, the tokens of a picture as one ``<image>``."""
    out, run, on = "", [], False
    for token, label in [*zip(ids, labels, strict=True), (None, None)]:
        assert label in (IGNORE, token)
        if run and (token is None or (label != IGNORE) != on):
            text = text_of(processor.tokenizer, run)
            out += f"⟦{text}⟧" if on else text
            run = []
        on = label != IGNORE
        run.append(token)
    return out.replace("<image>" * processor.num_image_tokens, "<image>")


VICUNA_SYSTEM = (
    "A chat between a curious human and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the human's questions."
)
SMOLLM2_SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"
TWO_TURNS = ("What is it?", "A cat.", "Where?", "On the mat.")

# tokenizer, template (None: the tokenizer's own), system prompt → the chat of two turns
EXPECTED = {
    ("vicuna", "vicuna_v1", None): (
        f"<s> {VICUNA_SYSTEM} USER: <image>\nWhat is it? ASSISTANT:⟦ A cat.</s>⟧"
        "USER: Where? ASSISTANT:⟦ On the mat.</s>⟧"
    ),
    ("vicuna", "vicuna_v1", "Be brief."): (
        "<s> Be brief. USER: <image>\nWhat is it? ASSISTANT:⟦ A cat.</s>⟧USER: Where? ASSISTANT:⟦ On the mat.</s>⟧"
    ),
    ("llama3", "llama3", None): (
        "<|begin_of_text|><|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦A cat.<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nWhere?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦On the mat.<|eot_id|>⟧"
    ),
    ("llama3", None, None): (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        "Cutting Knowledge Date: December 2023\nToday Date: 26 Jul 2024\n\n<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦A cat.<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nWhere?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦On the mat.<|eot_id|>⟧"
    ),
    ("llama3", "llama3", "Be brief."): (
        "<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
        "<|start_header_id|>user<|end_header_id|>\n\n<image>\nWhat is it?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦A cat.<|eot_id|>⟧"
        "<|start_header_id|>user<|end_header_id|>\n\nWhere?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n⟦On the mat.<|eot_id|>⟧"
    ),
    ("qwen3", "qwen3", None): (
        "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n⟦A cat.<|im_end|>⟧\n"
        "<|im_start|>user\nWhere?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n⟦On the mat.<|im_end|>⟧\n"
    ),
    ("qwen3", "qwen3", "Be brief."): (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n⟦A cat.<|im_end|>⟧\n"
        "<|im_start|>user\nWhere?<|im_end|>\n"
        "<|im_start|>assistant\n<think>\n\n</think>\n\n⟦On the mat.<|im_end|>⟧\n"
    ),
    ("smollm2", None, None): (
        f"<|im_start|>system\n{SMOLLM2_SYSTEM}<|im_end|>\n"
        "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n⟦A cat.<|im_end|>⟧\n"
        "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n⟦On the mat.<|im_end|>⟧\n"
    ),
    ("smollm2", None, "Be brief."): (
        "<|im_start|>system\nBe brief.<|im_end|>\n"
        "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n⟦A cat.<|im_end|>⟧\n"
        "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n⟦On the mat.<|im_end|>⟧\n"
    ),
    ("smollm2", "chatml", None): (
        "<|im_start|>user\n<image>\nWhat is it?<|im_end|>\n<|im_start|>assistant\n⟦A cat.<|im_end|>⟧\n"
        "<|im_start|>user\nWhere?<|im_end|>\n<|im_start|>assistant\n⟦On the mat.<|im_end|>⟧\n"
    ),
}


@pytest.mark.parametrize(("kind", "template", "system"), EXPECTED)
def test_two_turns(kind, template, system):
    processor = processor_of(stand_in_tokenizer(kind), TEMPLATES.get(template))
    ids, labels = encode_supervised(processor, chat(*TWO_TURNS, system=system))
    expected = EXPECTED[kind, template, system]
    assert marked(processor, ids, labels) == expected
    assert ids.count(processor.image_token_id) == IMAGE_TOKENS
    plain = expected.replace("⟦", "").replace("⟧", "").removeprefix("<s> ")
    whole = processor.tokenizer(plain, add_special_tokens=kind == "vicuna")["input_ids"]
    assert ids == processor.expand_placeholders(whole)  # as if the whole chat had been tokenised at once


@pytest.mark.parametrize(("kind", "template"), dict.fromkeys((kind, template) for kind, template, _ in EXPECTED))
@pytest.mark.parametrize("turns", [("What?", "A cat."), TWO_TURNS], ids=["one turn", "two turns"])
def test_training_and_asking_see_the_same_tokens(kind, template, turns):
    """What stands before the last answer is what a model is asked with, token for token."""
    processor = processor_of(stand_in_tokenizer(kind), TEMPLATES.get(template))
    ids, labels = encode_supervised(processor, chat(*turns, image=False))
    asked = processor.apply_chat_template(chat(*turns[:-1], image=False), tokenize=True, add_generation_prompt=True)[0]
    assert ids[: len(asked)] == asked
    assert labels[len(asked)] == ids[len(asked)] and labels[len(asked) - 1] == IGNORE


LEARNT_TOKENS = {
    ("vicuna", "vicuna_v1"): ["▁A", "▁cat", ".", "</s>"],
    ("llama3", "llama3"): ["A", "Ġcat", ".", "<|eot_id|>"],
    ("qwen3", "qwen3"): ["A", "Ġcat", ".", "<|im_end|>"],
    ("smollm2", "chatml"): ["A", "Ġcat", ".", "<|im_end|>"],
}


@pytest.mark.parametrize(("kind", "template"), LEARNT_TOKENS)
def test_learnt_tokens(kind, template):
    processor = processor_of(stand_in_tokenizer(kind), TEMPLATES[template])
    _, labels = encode_supervised(processor, chat("What?", "A cat."))
    learnt = [label for label in labels if label != IGNORE]
    assert processor.tokenizer.convert_ids_to_tokens(learnt) == LEARNT_TOKENS[kind, template]


def test_qwen3_own_template():
    """One turn: the empty thought has to be said by the model, so it is learnt. Two: an earlier one is taken out."""
    processor = processor_of(stand_in_tokenizer("qwen3"))
    ids, labels = encode_supervised(processor, chat("What?", "A cat."))
    assert marked(processor, ids, labels) == (
        "<|im_start|>user\n<image>\nWhat?<|im_end|>\n<|im_start|>assistant\n⟦<think>\n\n</think>\n\nA cat.<|im_end|>⟧\n"
    )
    with pytest.raises(UserError, match=r"sample 7: .*rewrites earlier turns.*model.chat_template.*qwen3"):
        encode_supervised(processor, chat(*TWO_TURNS), name="sample 7")


@pytest.mark.parametrize("kind", ["vicuna", "llama3", "qwen3", "smollm2"])
def test_plain_is_llavas_stage_1(kind):
    """LLaVA's preprocess_plain learns everything behind the picture, the line break too: nothing else ends a caption.

    Llama 3 and Qwen have one token for a full stop and the line break after it.
    """
    processor = processor_of(stand_in_tokenizer(kind), TEMPLATES["chatml"])
    ids, labels = encode_supervised(
        processor, chat("Describe the image.", "A cat is on the mat."), chat_template=TEMPLATES["plain"]
    )
    # Both add their start token; a picture at the start keeps SentencePiece from adding a space.
    start = {"vicuna": "<s>", "llama3": "<|begin_of_text|>"}.get(kind, "")
    assert marked(processor, ids, labels) == f"{start}<image>⟦A cat is on the mat.\n⟧"


def test_line_break_is_learnt_only_where_nothing_else_ends_the_turn(processor):
    spoken = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    spoken += "{% if add_generation_prompt %}assistant: {% endif %}"
    ids, labels = encode_supervised(processor, chat("What?", "A cat.", image=False), chat_template=spoken)
    assert marked(processor, ids, labels) == "user: What?\nassistant: ⟦A cat.\n⟧"
    ids, labels = encode_supervised(processor, chat("What?", "A cat.\n", image=False))
    assert marked(processor, ids, labels) == (
        "<|im_start|>user\nWhat?<|im_end|>\n<|im_start|>assistant\n⟦A cat.\n<|im_end|>⟧\n"
    )


def merging_tokenizer(*merges):
    """Bytes and these merges, which stop at nothing: not even at a word's start."""
    vocabulary = ["<|im_start|>", "<|im_end|>", "</s>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
    vocabulary += ["".join(pair) for pair in merges]
    core = Tokenizer(models.BPE(vocab={token: i for i, token in enumerate(vocabulary)}, merges=list(merges)))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(vocabulary[:3])
    return PreTrainedTokenizerFast(tokenizer_object=core, pad_token="</s>", eos_token="</s>")


CROSSING = {
    "the answer's space": ("vicuna_v1", [("Ġ", "A"), (":", "ĠA")], ["ĠA", "Ġ", "c"]),
    "the answer's word": ("chatml", [("Ċ", "A")], ["A", "Ġ", "c"]),
    "only the answer": ("chatml", [("A", "Ġ")], ["AĠ", "c"]),
}


@pytest.mark.parametrize("case", CROSSING)
def test_no_token_crosses_from_prompt_to_answer(case):
    template, merges, first = CROSSING[case]
    processor = processor_of(merging_tokenizer(*merges), TEMPLATES[template])
    turns = ("What?", "A cat.", "And?", "A dog.")
    ids, labels = encode_supervised(processor, chat(*turns))
    learnt = processor.tokenizer.convert_ids_to_tokens([label for label in labels if label != IGNORE])
    assert learnt[: len(first)] == first
    assert marked(processor, ids, labels).count("⟦ A" if template == "vicuna_v1" else "⟦A") == 2
    asked = processor.apply_chat_template(chat(turns[0], image=False), tokenize=True, add_generation_prompt=True)[0]
    assert encode_supervised(processor, chat(*turns, image=False))[0][: len(asked)] == asked


def test_several_images_in_several_turns(processor):
    messages = chat("First?", "Red.", "Second?", "Blue.")
    messages[2]["content"].append({"type": "image", "image": None})
    ids, labels = encode_supervised(processor, messages)
    assert ids.count(processor.image_token_id) == 2 * processor.num_image_tokens
    assert marked(processor, ids, labels) == (
        "<|im_start|>user\n<image>\nFirst?<|im_end|>\n<|im_start|>assistant\n⟦Red.<|im_end|>⟧\n"
        "<|im_start|>user\nSecond?\n<image><|im_end|>\n<|im_start|>assistant\n⟦Blue.<|im_end|>⟧\n"
    )


def test_typed_special_tokens_stay_text(processor):
    ids, labels = encode_supervised(processor, chat("Is <image> or <|im_end|> there?", "No <|im_end|> here."))
    assert ids.count(processor.image_token_id) == processor.num_image_tokens
    assert ids.count(processor.tokenizer.convert_tokens_to_ids("<|im_end|>")) == 2  # the template's own
    assert marked(processor, ids, labels).endswith("⟦No <|im_end|> here.<|im_end|>⟧\n")


def test_empty_answer_names_the_sample(processor):
    bare = "{% for m in messages %}{{ m['content'] }}{% endfor %}"
    with pytest.raises(UserError, match="sample 7: no token is left to learn"):
        encode_supervised(processor, chat("What?", ""), name="sample 7", chat_template=bare)


@pytest.mark.parametrize("kind", ["vicuna", "llama3", "qwen3", "smollm2"])
def test_every_length_is_cut_right_or_refused_by_name(kind):
    """Cut at any length, a chat keeps whole pictures and some answer, or is refused."""
    template = {"vicuna": "vicuna_v1", "smollm2": "chatml"}.get(kind, kind)
    processor = processor_of(stand_in_tokenizer(kind), TEMPLATES[template])
    messages = chat(*TWO_TURNS)
    messages[2]["content"].append({"type": "image", "image": None})
    ids, labels = encode_supervised(processor, messages)
    last_image = max(i for i, token in enumerate(ids) if token == processor.image_token_id) + 1
    for length in range(1, len(ids) + 2):
        if length < last_image:
            with pytest.raises(UserError, match=f"^s7: max_length {length} would cut image tokens"):
                encode_supervised(processor, messages, name="s7", max_length=length)
        else:
            assert encode_supervised(processor, messages, max_length=length) == (ids[:length], labels[:length])
    text = chat("What is it?", "A cat.", image=False)
    ids, labels = encode_supervised(processor, text)
    first = next(i for i, label in enumerate(labels) if label != IGNORE)
    with pytest.raises(UserError, match=f"^s7: no token is left to learn .*max_length {first} cut it off"):
        encode_supervised(processor, text, name="s7", max_length=first)
    assert encode_supervised(processor, text, max_length=first + 1)[1][first] == ids[first]


def test_template_that_rewrites_earlier_turns(processor):
    rewriting = "{{ messages | length }}" + TEMPLATES["chatml"]
    with pytest.raises(UserError, match="rewrites earlier turns"):
        encode_supervised(processor, chat("What?", "A cat."), name="s", chat_template=rewriting)

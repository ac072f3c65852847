"""``igva.build``: pretrained parts → model and processor."""

import json

import pytest
import torch
from transformers import CLIPConfig, CLIPModel

import igva
from igva.errors import UserError
from igva.testing import SMALL_FUSION_KWARGS, save_tiny_parts, text_config, tiny_image_processor, vision_config

SMALL = SMALL_FUSION_KWARGS["igva"]


@pytest.fixture(scope="module")
def parts(tmp_path_factory):
    return save_tiny_parts(tmp_path_factory.mktemp("parts"))


def test_parts_are_taken_over_as_they_are(parts):
    from transformers import AutoModel, AutoModelForCausalLM

    model, _ = igva.build(**parts, fusion_kwargs=SMALL)
    vision, text = AutoModel.from_pretrained(parts["vision"]), AutoModelForCausalLM.from_pretrained(parts["text"])
    for ours, theirs in ((model.model.vision_tower, vision), (model.model.language_model, text.model)):
        assert all(torch.equal(value, theirs.state_dict()[name]) for name, value in ours.state_dict().items())
    assert torch.equal(model.lm_head.weight, text.lm_head.weight)


def test_the_language_model_attends_as_asked(parts):
    model, _ = igva.build(**parts, fusion_kwargs=SMALL, attention="eager")
    language, tower = model.model.language_model, model.model.vision_tower
    assert (language.config._attn_implementation, tower.config._attn_implementation) == ("eager", "sdpa")
    assert language.layers[0].self_attn.config._attn_implementation == "eager"


def test_it_answers_and_survives_saving(parts, picture, tmp_path):
    model, processor = igva.build(**parts, fusion_kwargs=SMALL)
    first = igva.answer(model, processor, picture(), "What?", max_new_tokens=3)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    again = igva.answer(*igva.load(tmp_path), picture(), "What?", max_new_tokens=3)
    assert (first.answer, first.layer_weights) == (again.answer, again.layer_weights)


def test_image_token_is_added_where_it_is_missing(parts, tmp_path):
    """The vocabulary grows by one zero row, the other rows stay, and generation never emits it."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    from igva.building import add_image_token

    tokenizer = AutoTokenizer.from_pretrained(parts["text"])
    language = AutoModelForCausalLM.from_pretrained(parts["text"])
    before = language.get_input_embeddings().weight.clone()
    full = [token for token in tokenizer.get_vocab() if token != "<image>"]
    bare = _tokenizer_without_image(len(full) + 1)
    token = add_image_token(bare, language)
    after = language.get_input_embeddings().weight
    assert token == before.shape[0] and after.shape[0] == before.shape[0] + 1
    assert torch.equal(after[:-1], before) and after[-1].abs().sum() == 0
    assert bare("a<image>b", add_special_tokens=False)["input_ids"].count(token) == 1


def _tokenizer_without_image(size):
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE(vocab={t: i for i, t in enumerate([*alphabet, "<p>", "<e>", "<x>", "<y>"])}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    return PreTrainedTokenizerFast(tokenizer_object=core, eos_token="<e>")


def test_generation_never_emits_a_placeholder(parts):
    model, processor = igva.build(**parts, fusion_kwargs=SMALL)
    assert model.generation_config.suppress_tokens == [processor.image_token_id]
    with torch.no_grad():
        model.lm_head.weight.zero_()
        model.lm_head.weight[processor.image_token_id] = 1e3
    ids = model.generate(torch.tensor([[5, 6]]), max_new_tokens=4)
    assert processor.image_token_id not in ids[0, 2:].tolist()


def test_the_vision_half_of_a_clip_is_taken(parts, tmp_path):
    text = {"vocab_size": 50, "hidden_size": 32, "intermediate_size": 48}
    text |= {"num_hidden_layers": 1, "num_attention_heads": 4}
    clip = CLIPModel(CLIPConfig(vision_config=vision_config("clip").to_dict(), text_config=text, projection_dim=16))
    clip.save_pretrained(tmp_path)
    tiny_image_processor(28).save_pretrained(tmp_path)
    model, _ = igva.build(tmp_path, parts["text"], parts["instruction"], fusion_kwargs=SMALL)
    ours = model.model.vision_tower.encoder.layers[0].mlp.fc1.weight
    assert torch.equal(ours, clip.vision_model.encoder.layers[0].mlp.fc1.weight)


@pytest.mark.parametrize("language", ["llama", "qwen3"])
@pytest.mark.parametrize("encoder", ["bert", "mpnet"])
def test_other_parts(tmp_path, picture, language, encoder):
    parts = save_tiny_parts(tmp_path, "dinov2", language, encoder)
    model, processor = igva.build(**parts, fusion_kwargs=SMALL)
    assert type(model.model.language_model.config) is type(text_config(language))
    assert igva.answer(model, processor, picture(), "What?", max_new_tokens=2).layer_weights


@pytest.mark.parametrize(
    ("pooling", "expected"),
    [
        ({"pooling_mode_mean_tokens": True}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode_max_tokens": True}, None),
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True}, None),
    ],
)
def test_pooling_follows_modules_json(tmp_path, pooling, expected):
    folder = tmp_path / "parts"
    parts = save_tiny_parts(folder)
    modules = [{"path": "", "type": "sentence_transformers.models.Transformer"}]
    modules.append({"path": "1_Pooling", "type": "sentence_transformers.models.Pooling"})
    (folder / "instruction/modules.json").write_text(json.dumps(modules))
    (folder / "instruction/1_Pooling").mkdir()
    (folder / "instruction/1_Pooling/config.json").write_text(json.dumps(pooling))
    if expected is None:
        with pytest.raises(UserError, match="not supported"):
            igva.build(**parts, fusion_kwargs=SMALL)
        return
    config = igva.build(**parts, fusion_kwargs=SMALL)[0].config
    assert (config.instruction_pooling, config.instruction_normalize) == (expected, False)  # no Normalize module


BAD = {
    "no fusion 'igwa'": {"fusion": "igwa"},
    "did you mean 'hidden_size'": {"fusion_kwargs": {"hiden_size": 4}},
    "layer 30 does not exist": {"fusion_kwargs": {**SMALL, "base_layer": 30}},
    "is not a multiple of num_heads": {"fusion_kwargs": {**SMALL, "num_heads": 3}},
    "vision_pool 3 does not divide": {"fusion_kwargs": SMALL, "vision_pool": 3},
    "reads the instruction": {"fusion_kwargs": SMALL, "instruction": None},
    "no embedded:eyes": {"vision": "embedded:eyes"},
}


@pytest.mark.parametrize("message", BAD)
def test_what_does_not_fit_is_one_line(parts, message):
    with pytest.raises(UserError, match=message) as caught:
        igva.build(**{**parts, **BAD[message]})
    assert "\n" not in str(caught.value)

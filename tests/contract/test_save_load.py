"""``save_pretrained`` and the Auto classes, for every fusion and tower.

``from_pretrained`` maps the weights from the file, and mapped memory is aligned differently: kernels may then sum
in another order. Logits are compared on a deep copy of the loaded model, exactly.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel, AutoModelForCausalLM, AutoModelForImageTextToText, AutoProcessor

from igva.model.fusions import fusion_names
from igva.model.modeling_igva import IgvaForConditionalGeneration, IgvaModel
from igva.testing import ENSEMBLE, INSTRUCTION_ENCODERS, LANGUAGE_MODELS, TOWERS


def assert_same_weights(left, right):
    a, b = left.state_dict(), right.state_dict()
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


@pytest.mark.parametrize("tower", [*TOWERS, ENSEMBLE])
@pytest.mark.parametrize("fusion", fusion_names())
def test_round_trip(fusion, tower, make, user, encode, picture, tmp_path):
    model, processor = make(fusion, tower)
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    assert not list(tmp_path.glob("*.bin"))  # safetensors only

    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert type(loaded) is IgvaForConditionalGeneration
    assert loaded.config.fusion_kwargs == model.config.fusion_kwargs
    assert loaded.model.fusion.config == model.model.fusion.config
    assert_same_weights(model, loaded)

    chats = [user("What is this?", picture(1)), user("And that, pray?", picture(2, 50, 30))]
    inputs = encode(processor, chats)
    again = encode(AutoProcessor.from_pretrained(tmp_path), chats)
    assert inputs.keys() == again.keys()
    assert all(torch.equal(inputs[name], again[name]) for name in inputs)
    with torch.no_grad():
        expected = model(**inputs).logits
        assert torch.equal(copy.deepcopy(loaded)(**inputs).logits, expected)
    assert not torch.allclose(expected[0, -1], expected[1, -1], atol=1e-2)  # the inputs reach the logits


@pytest.mark.parametrize("encoder", INSTRUCTION_ENCODERS)
@pytest.mark.parametrize("language", LANGUAGE_MODELS)
def test_round_trip_of_language_models_and_sentence_encoders(language, encoder, make, user, encode, picture, tmp_path):
    model, processor = make("igva", "clip", language, encoder)
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert loaded.config.instruction_config.model_type == encoder
    assert_same_weights(model, loaded)
    inputs = encode(processor, user("What is this?", picture()))
    with torch.no_grad():
        assert torch.equal(copy.deepcopy(loaded)(**inputs).logits, model(**inputs).logits)


def test_the_other_auto_classes(make, tmp_path):
    model, _ = make()
    model.save_pretrained(tmp_path)
    base = AutoModel.from_pretrained(tmp_path)
    assert type(base) is IgvaModel
    assert_same_weights(model.model, base)
    assert type(AutoModelForCausalLM.from_pretrained(tmp_path)) is IgvaForConditionalGeneration


def test_a_model_without_an_instruction_encoder_takes_vectors(make, user, encode, picture, tmp_path):
    model, processor = make("igva", encoder=None, instruction_dim=24)
    assert model.model.instruction_encoder is None
    model.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    loaded = copy.deepcopy(AutoModelForImageTextToText.from_pretrained(tmp_path))
    inputs = encode(AutoProcessor.from_pretrained(tmp_path), user("What?", picture()))
    assert "instruction_input_ids" not in inputs
    vector = torch.nn.functional.normalize(torch.randn(1, 24), dim=-1)
    with torch.no_grad():
        assert torch.equal(
            loaded(**inputs, instruction_embeds=vector).logits, model(**inputs, instruction_embeds=vector).logits
        )
        with pytest.raises(ValueError, match="instruction_embeds"):
            loaded(**inputs)
        with pytest.raises(ValueError, match="no instruction encoder"):
            loaded(**inputs, instruction_input_ids=torch.ones(1, 1, 3, dtype=torch.long))


def test_vectors_equal_the_encoder_they_came_from(make, user, encode, picture):
    model, processor = make()
    inputs = encode(processor, user("What?", picture()))
    with torch.no_grad():
        expected = model(**inputs).logits
        vector = model.model.encode_instruction(
            inputs.pop("instruction_input_ids"), inputs.pop("instruction_attention_mask")
        )
        assert torch.equal(model(**inputs, instruction_embeds=vector).logits, expected)


def test_tied_embeddings_stay_tied(stir, tmp_path):
    from igva.model.configuration_igva import IgvaConfig
    from igva.testing import instruction_config, text_config, vision_config

    text = text_config()
    text.tie_word_embeddings = True
    config = IgvaConfig(
        vision_config=vision_config("clip"),
        text_config=text,
        instruction_config=instruction_config(),
        fusion="mean",
        fusion_kwargs={"num_groups": 2},
        image_token_id=3,
    )
    model = stir(IgvaForConditionalGeneration(config)).eval()
    assert model.lm_head.weight is model.get_input_embeddings().weight
    model.save_pretrained(tmp_path)
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path)
    assert loaded.lm_head.weight is loaded.get_input_embeddings().weight
    assert_same_weights(model, loaded)


def test_the_instruction_tokenizer_has_its_own_folder(make, tmp_path):
    _, processor = make()
    processor.instruction_tokenizer.model_max_length = 17
    processor.save_pretrained(tmp_path)
    folder = tmp_path / "instruction_tokenizer"
    assert json.loads((folder / "tokenizer_config.json").read_text())["model_max_length"] == 17
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["model_max_length"] == 4096
    loaded = AutoProcessor.from_pretrained(tmp_path)
    assert loaded.instruction_tokenizer.model_max_length == 17
    assert loaded.tokenizer.model_max_length == 4096
    for name in ("image_token", "image_token_id", "num_image_tokens", "use_instructions"):
        assert getattr(loaded, name) == getattr(processor, name), name


def test_config_keeps_the_fusion_options(make, tmp_path: Path):
    model, _ = make("igva", fusion_kwargs={"groups": [[1], [2, 3]], "hidden_size": 8, "num_heads": 2})
    model.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert loaded.fusion == "igva"
    assert loaded.fusion_kwargs == {"groups": [[1], [2, 3]], "hidden_size": 8, "num_heads": 2}
    assert loaded.vision_config.model_type == "clip_vision_model"
    assert loaded.text_config.model_type == "llama"

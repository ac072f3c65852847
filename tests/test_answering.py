"""``load`` and ``answer``: what the command line, the server and the evaluation stand on."""

import json

import pytest
import torch

import igva
from igva.answering import SamplingOptions
from igva.errors import UserError
from igva.testing import tiny_model, tiny_processor

from .conftest import redraw


def test_answer_has_everything(model_folder, picture, tmp_path):
    file = tmp_path / "p.png"
    picture().save(file)
    model, processor = igva.load(model_folder)
    result = igva.answer(model, processor, file, "What is it?", max_new_tokens=3, name="m")
    told = json.loads(json.dumps(result.to_json()))
    assert list(told) == ["answer", "model", "layer_groups", "layer_weights", "timings"]
    assert told["layer_groups"] == [[1, 2], [3, 4]]
    assert len(told["layer_weights"]) == 2 and sum(told["layer_weights"]) == pytest.approx(1, abs=1e-3)
    timings = told["timings"]
    assert list(timings) == ["load_s", "encode_s", "first_token_s", "total_s"]
    assert 0 < timings["encode_s"] <= timings["first_token_s"] <= timings["total_s"]


def test_groups_have_names_where_layers_have(ensemble, picture):
    result = igva.answer(*ensemble, picture(), "What is it?", max_new_tokens=2)
    told = json.loads(json.dumps(result.to_json()))
    assert list(told) == ["answer", "model", "layer_groups", "layer_names", "layer_weights", "timings"]
    assert told["layer_groups"] == [[1, 2], [3, 4]]
    assert told["layer_names"] == result.group_labels() == ["dinov2.2,4", "efficientnet.2,words"]


def test_groups_have_numbers_else(model_folder, picture):
    result = igva.answer(*igva.load(model_folder), picture(), "What is it?", max_new_tokens=2)
    assert result.layer_names is None and result.group_labels() == ["layers 1-2", "layers 3-4"]


def test_several_pictures_give_a_row_each(model_folder, picture):
    model, processor = igva.load(model_folder)
    result = igva.answer(model, processor, [picture(0), picture(1)], "Which?", max_new_tokens=2)
    assert len(result.layer_weights) == 2 and len(result.layer_weights[0]) == 2
    assert result.weight_rows() == result.layer_weights


def test_answer_is_what_generate_says(model_folder, picture):
    """No second way from pixels to words."""
    model, processor = igva.load(model_folder)
    chat = [{"role": "user", "content": [{"type": "image", "image": picture()}, {"type": "text", "text": "What?"}]}]
    inputs = processor.apply_chat_template(
        chat, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True
    )
    ids = model.generate(**inputs, max_new_tokens=6)[0, inputs["input_ids"].shape[1] :]
    expected = processor.tokenizer.decode(ids, skip_special_tokens=True).strip()
    assert igva.answer(model, processor, picture(), "What?", max_new_tokens=6).answer == expected


def test_words_are_drawn_as_asked(picture):
    model = redraw(tiny_model())
    processor = tiny_processor(model)

    def said(**options):
        sampling = SamplingOptions(**options)
        return igva.answer(model, processor, picture(), "What?", max_new_tokens=8, sampling=sampling).answer

    likeliest = igva.answer(model, processor, picture(), "What?", max_new_tokens=8).answer
    assert said(temperature=0) == said(temperature=0.7, top_p=1e-6, seed=1) == said(temperature=1e-42) == likeliest
    model.generation_config.num_beams = 2
    assert said(temperature=0) == likeliest
    model.generation_config.num_beams = 1
    before = torch.random.get_rng_state()
    first = said(temperature=1.5, seed=1)
    assert torch.equal(torch.random.get_rng_state(), before)  # a seed is the answer's own
    assert first == said(temperature=1.5, seed=1)
    assert len({said(temperature=1.5, seed=seed) for seed in range(4)}) > 1


def test_a_fusion_without_weights(picture):
    model = tiny_model("single")
    result = igva.answer(model, tiny_processor(model), picture(), "What?", max_new_tokens=2)
    assert result.layer_groups == [] and result.layer_weights is None and result.weight_rows() == [[]]


def test_dtype_and_device(model_folder):
    model, _ = igva.load(model_folder, device="cpu", dtype="bfloat16")
    assert model.dtype == torch.bfloat16
    assert igva.load(model_folder)[0].dtype == torch.float32


def test_bad_models(model_folder, tmp_path):
    empty = tmp_path / "empty"
    empty.mkdir()
    bare = tmp_path / "bare"
    bare.mkdir()
    (bare / "config.json").write_text((model_folder / "config.json").read_text())
    pickled = tmp_path / "pickled"
    pickled.mkdir()
    (pickled / "config.json").write_text("{}")
    (pickled / "pytorch_model.bin").write_bytes(b"x")
    for name, message in (
        ("tinny", "no model 'tinny': `igva models` lists"),
        (empty, "no config.json"),
        (bare, "has no weights"),
        (pickled, "pickled weights .*safetensors"),
        (model_folder / "config.json", "is not a folder"),
    ):
        with pytest.raises(UserError, match=message) as caught:
            igva.load(name)
        assert "\n" not in str(caught.value)


def test_a_pickle_is_never_opened(tmp_path, model_folder):
    """A booby-trapped pickle beside a config is refused, not run."""
    trap = tmp_path / "ran"
    bomb = f"cposix\nsystem\n(S'touch {trap}'\ntR.".encode()
    for name in ("config.json", "processor_config.json", "tokenizer.json"):
        (tmp_path / name).write_bytes((model_folder / name).read_bytes())
    (tmp_path / "pytorch_model.bin").write_bytes(bomb)
    with pytest.raises(UserError, match="pickled"):
        igva.load(tmp_path)
    assert not trap.exists()


def test_other_architectures_are_named(tmp_path):
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    from igva.testing import text_config, vision_config

    config = LlavaConfig(vision_config=vision_config("clip"), text_config=text_config(), image_token_index=3)
    assert isinstance(config.text_config, LlamaConfig) and isinstance(config.vision_config, CLIPVisionConfig)
    LlavaForConditionalGeneration(config).save_pretrained(tmp_path)
    tiny_processor(tiny_model()).save_pretrained(tmp_path)
    with pytest.raises(UserError, match="igva convert llava"):
        igva.load(tmp_path)


def test_bad_device_dtype_and_question(model_folder, picture):
    with pytest.raises(UserError, match="no device 'tpu'"):
        igva.load(model_folder, device="tpu")
    if not torch.cuda.is_available():
        with pytest.raises(UserError, match="'cuda' is not available"):
            igva.load(model_folder, device="cuda")
    with pytest.raises(UserError, match="no dtype 'int7'"):
        igva.load(model_folder, dtype="int7")
    model, processor = igva.load(model_folder)
    with pytest.raises(UserError, match="question is empty"):
        igva.answer(model, processor, picture(), "  ")

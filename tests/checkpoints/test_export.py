"""``igva export``: a stock LLaVA says what the igva model said."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import torch
import transformers
from PIL import Image
from transformers import CLIPImageProcessor

from igva.checkpoints.export import export_llava, layer_factors, read_mixture
from igva.checkpoints.retrofit import retrofit_llava
from igva.cli.main import entry
from igva.errors import UserError
from igva.model.fusion_base import FusionOutput
from igva.model.fusions import fusion_names
from igva.model.vision_layers import VisionLayers
from igva.testing import tiny_model, tiny_processor

from ..conftest import redraw

FIXED = ("single", "mean", "dense_sci", "dense_dci", "external_direct")
GUIDED = ("igva", "igva_concat")
MIXTURE = torch.tensor([0.2, 0.8])


def made(fusion, tower="clip", **config):
    """A model whose picture matters, and its processor."""
    model = redraw(tiny_model(fusion, tower, **config))
    return model, tiny_processor(model)


def chat(picture, question="What is it?"):
    return [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": question}]}]


def encoded(processor, *chats):
    return processor.apply_chat_template(
        list(chats),
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
        processor_kwargs={"padding": True},
    )


def frozen(model, weights):
    """The model with the same weights for every question."""
    model.model.fusion.allocator.forward = lambda instruction, descriptors, patches: weights.to(
        descriptors.dtype
    ).expand(len(descriptors), -1)
    return model


@pytest.fixture
def pictures(picture):
    return [picture(1), picture(2).resize((40, 28))]


@pytest.mark.parametrize("tower", ["clip", "siglip", "dinov2", "vit"])
@pytest.mark.parametrize("fusion", FIXED + GUIDED)
def test_logits_are_those_of_the_model(fusion, tower, pictures):
    model, processor = made(fusion, tower)
    mixture = MIXTURE if fusion in GUIDED else None
    export = export_llava(model, processor, mixture)
    if mixture is not None:
        frozen(model, mixture)
    chats = [chat(pictures[0]), chat(pictures[1], "And what colour has it got?")]
    ours, theirs = encoded(processor, *chats), encoded(export.processor, *chats)
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"], atol=1e-5, rtol=0)
    with torch.no_grad():
        expected, got = model(**ours).logits, export.model(**theirs).logits
    mask = ours["attention_mask"].bool()
    assert expected[mask].std() > 0.01  # pictures and questions matter
    torch.testing.assert_close(got[mask], expected[mask], atol=1e-4, rtol=0)


@pytest.mark.parametrize("fusion", fusion_names())
def test_fixed_blocks_are_the_features(fusion):
    """Over the whole table: where a fusion says that it is a sum with fixed factors, it is."""
    model, _ = made(fusion)
    method = model.model.fusion
    count = len(method.layer_groups)
    weights = torch.softmax(torch.randn(count), dim=0) if fusion in GUIDED else None
    blocks = method.fixed_blocks(weights)
    assert (blocks is not None) == (fusion in FIXED + GUIDED)
    if blocks is None:
        return
    dims = method.dims
    layers = VisionLayers(
        torch.randn(2, len(method.taps), dims.num_patches, dims.vision_dim), torch.randn(2, len(method.taps), 8)
    )
    expected = method.mix(layers, weights.expand(2, -1)) if fusion in GUIDED else method(layers, None).features
    got = torch.einsum("bt,itnd->inbd", blocks, layers.patches).flatten(2)
    torch.testing.assert_close(got, expected)


def test_layers_without_weight_are_not_read():
    layers, factors = layer_factors(torch.tensor([[1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]), ((3,), (1, 2), (3, 4)))
    assert layers == [3, 4]
    assert torch.equal(factors, torch.tensor([[1.0, 0.0], [0.5, 0.5]]))


def test_the_folder_needs_no_igva(tmp_path, pictures):
    model, processor = made("igva", language="qwen3")
    model.save_pretrained(tmp_path / "igva")
    processor.save_pretrained(tmp_path / "igva")
    (tmp_path / "mixture.json").write_text(json.dumps(MIXTURE.tolist()))
    mixture = ["--mixture", str(tmp_path / "mixture.json")]
    assert entry(["export", str(tmp_path / "igva"), str(tmp_path / "llava"), "--to", "llava", *mixture]) == 0
    pictures[0].save(tmp_path / "picture.png")
    code = """
import sys
sys.modules["igva"] = None  # an import of it would fail
import torch
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor
model = AutoModelForImageTextToText.from_pretrained("llava")
processor = AutoProcessor.from_pretrained("llava")
content = [{"type": "image", "image": Image.open("picture.png")}, {"type": "text", "text": "What is it?"}]
inputs = processor.apply_chat_template([{"role": "user", "content": content}], tokenize=True, return_dict=True,
                                       return_tensors="pt", add_generation_prompt=True)
with torch.no_grad():
    torch.save((type(model).__name__, model(**inputs).logits), "logits.pt")
"""
    subprocess.run([sys.executable, "-c", code], cwd=tmp_path, check=True, timeout=240)
    name, logits = torch.load(tmp_path / "logits.pt")
    assert name == "LlavaForConditionalGeneration"
    with torch.no_grad():
        expected = frozen(model, MIXTURE)(**encoded(processor, chat(Image.open(tmp_path / "picture.png")))).logits
    torch.testing.assert_close(logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("layer", [0, 4])
def test_the_first_and_the_last_layer_alone(layer, pictures):
    model, processor = made("single", fusion_kwargs={"layer": layer})
    inputs = encoded(processor, chat(pictures[0]))
    with torch.no_grad():
        theirs = export_llava(model, processor).model(**inputs).logits
        torch.testing.assert_close(theirs, model(**inputs).logits, atol=1e-4, rtol=0)


def test_back_again(tmp_path, pictures):
    """An exported model retrofitted says the same; its several layers have become bases."""
    model, processor = made("dense_dci")
    export_llava(model, processor).save(tmp_path / "llava")
    small = {"hidden_size": 16, "num_blocks": 1, "num_heads": 2}
    again = retrofit_llava(str(tmp_path / "llava"), instruction_dim=8, num_groups=2, **small)
    assert again.model.config.fusion_kwargs["base_layer"] == [0, 1, 2, 3]
    inputs = encoded(again.processor, chat(pictures[1]))
    with torch.no_grad():
        ours = again.model(**inputs, instruction_embeds=torch.randn(1, 8)).logits
        torch.testing.assert_close(ours, model(**encoded(processor, chat(pictures[1]))).logits, atol=1e-4, rtol=0)


@pytest.mark.parametrize("pad", [True, False])
@pytest.mark.parametrize("kind", ["CLIP", "Siglip", "ViT", "Bit"])
def test_pictures_of_any_shape(picture, kind, pad):
    """Of towers of every house: some crop, some do not know what that is."""
    model, processor = made("single")
    if kind != "CLIP":
        square = {"height": 28, "width": 28}
        size = {"shortest_edge": 28} if kind == "Bit" else square
        crop = {"crop_size": square} if kind == "Bit" else {}
        processor.image_processor = getattr(transformers, f"{kind}ImageProcessorPil")(size=size, **crop)
    processor.pad_images = pad
    stock = export_llava(model, processor).processor
    for size in ((28, 28), (90, 31), (31, 90), (300, 200)):
        shown = chat(picture(3).resize(size))
        torch.testing.assert_close(
            encoded(stock, shown)["pixel_values"], encoded(processor, shown)["pixel_values"], atol=1e-5, rtol=0
        )


def test_batches_are_padded_on_the_left(pictures):
    model, processor = made("single")
    processor.tokenizer.padding_side = "right"  # as most tokenizers have it
    stock = export_llava(model, processor).processor
    chats = [chat(pictures[0]), chat(pictures[1], "And what colour has it got?")]
    assert torch.equal(encoded(stock, *chats)["input_ids"], encoded(processor, *chats)["input_ids"])
    assert processor.tokenizer.padding_side == "right"


def test_pictures_that_come_otherwise_are_refused():
    model, processor = made("single")

    class Dark(CLIPImageProcessor):
        def __call__(self, images, **options):
            return super().__call__([image.point(lambda value: value // 2) for image in images], **options)

    settings = {k: v for k, v in processor.image_processor.to_dict().items() if k != "image_processor_type"}
    processor.image_processor = Dark(**settings)
    with pytest.raises(UserError, match="does not make of a picture what Dark makes"):
        export_llava(model, processor)


def test_a_fusion_that_does_not_do_what_it_says_is_refused(monkeypatch):
    model, processor = made("dense_dci")
    method = type(model.model.fusion)
    forward = method.forward
    monkeypatch.setattr(method, "forward", lambda *given: FusionOutput(features=forward(*given).features ** 2))
    with pytest.raises(UserError, match="does not see what the model sees"):
        export_llava(model, processor)


def test_no_sentence_encoder_is_needed(tmp_path):
    model, processor = made("igva", encoder=None, instruction_dim=8)
    model.save_pretrained(tmp_path / "igva")
    processor.save_pretrained(tmp_path / "igva")
    assert entry(["export", str(tmp_path / "igva"), str(tmp_path / "llava"), "--mixture", "uniform"]) == 0


@pytest.mark.parametrize(
    "template",
    [
        "{% for m in messages %}{% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}"
        "{% endfor %}{% endfor %}",
        "{% for m in messages %}{% for c in m['content'] %}{{ c['text'] }}{% endfor %}{% endfor %}",
        "{% for m in messages %}{{ m['role'] + ': ' + m['content'] }}{% endfor %}",
    ],
    ids=["items", "text items", "text"],
)
def test_templates_of_every_form(template, pictures):
    model, processor = made("single")
    processor.chat_template = processor.tokenizer.chat_template = template
    stock = export_llava(model, processor).processor
    talk = [*chat(pictures[0]), {"role": "assistant", "content": "A hat."}, {"role": "user", "content": "Whose?"}]
    if processor.template_form(template) == "items":  # taken over as it is, and this one takes items alone
        talk = [
            {**m, "content": [{"type": "text", "text": m["content"]}]} if isinstance(m["content"], str) else m
            for m in talk
        ]
    for shown in (talk, chat(pictures[1])):
        assert torch.equal(encoded(stock, shown)["input_ids"], encoded(processor, shown)["input_ids"])


@pytest.mark.parametrize(
    ("fusion", "config", "mixture", "told"),
    [
        ("tgif", {}, None, "fusion tgif"),
        ("dense_sti", {}, None, "fusion dense_sti"),
        ("deepstack", {}, None, "fusion deepstack"),
        ("mean", {"normalize_layers": True, "projector_norm": True}, None, "normalize_layers; projector_norm"),
        ("mean", {"visual_positions": True}, None, "visual_positions"),
        ("mean", {"image_size": 56}, None, "image_size 56"),
        ("mean", {"vision_pool": 2}, None, "vision_pool 2"),
        ("mean", {"projector_hidden_size": 7}, None, "projector_hidden_size 7"),
        ("igva", {}, None, "--mixture"),
        ("mean", {}, "uniform", "leave --mixture out"),
        ("igva", {}, "unifrom", "no mixture 'unifrom'"),
        ("igva", {}, torch.tensor([0.5, 0.3, 0.2]), "3 weights"),
    ],
)
def test_what_cannot_fold_is_named(fusion, config, mixture, told):
    model = tiny_model(fusion, **config)
    with pytest.raises(UserError, match=told):
        export_llava(model, tiny_processor(model), mixture)


def test_other_towers_are_refused():
    for tower, told in (("ensemble", "several encoders"), ("dinov2_with_registers", "tokens before the patches")):
        model = tiny_model("single", tower)
        with pytest.raises(UserError, match=told):
            export_llava(model, tiny_processor(model))


def test_mixtures(tmp_path):
    rows = [{"task": "a", "weights": [1.0, 0.0]}, {"task": "b", "weights": [0.5, 0.5]}]
    study = tmp_path / "weights.jsonl"
    study.write_text("".join(json.dumps(row) + "\n" for row in rows))
    assert read_mixture("uniform") == "uniform"
    assert read_mixture("task:b", tmp_path).tolist() == [0.5, 0.5]
    assert read_mixture(str(study)).tolist() == [0.75, 0.25]
    for content, told in (
        ("[0.5, 0.6]", "sum of 1"),
        ("[-1, 2]", "below 0"),
        ("{}", "no weights"),
        ("[", "no weights"),
        ("[]", "no weights"),
        ("[1" + "0" * 400 + "]", "no weights"),
    ):
        (tmp_path / "m.json").write_text(content)
        with pytest.raises(UserError, match=told):
            read_mixture(str(tmp_path / "m.json"))
    for said, folder, told in (
        ("task:c", tmp_path, "a, b"),
        ("task:a", None, "--weights"),
        (str(tmp_path / "gone"), None, "no file"),
        ("uniform", tmp_path, "--weights is for"),
    ):
        with pytest.raises(UserError, match=told):
            read_mixture(said, folder)


def test_a_study_of_other_rows(tmp_path):
    (tmp_path / "weights.jsonl").write_text("[0.5, 0.5]\n")
    with pytest.raises(UserError, match="no weights"):
        read_mixture(str(tmp_path / "weights.jsonl"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_stays(dtype):
    model, processor = made("dense_dci")
    export = export_llava(model.to(dtype), processor)
    assert {value.dtype for value in export.model.state_dict().values()} == {dtype}


def test_a_target_that_exists_is_left_alone(tmp_path, capsys):
    (tmp_path / "kept").write_text("mine")
    assert entry(["export", "tiny", str(tmp_path)]) == 2
    assert "exists already" in capsys.readouterr().err
    assert (tmp_path / "kept").read_text() == "mine"

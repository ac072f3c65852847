"""``retrofit_llava``: an IGVA model that answers as its LLaVA did, until it is trained."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import (
    AutoModel,
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessor,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
)

from igva.checkpoints.retrofit import retrofit_llava
from igva.errors import UserError
from igva.model.processing_igva import IgvaProcessor
from igva.testing import (
    SPECIALS,
    instruction_config,
    text_config,
    tiny_image_processor,
    tiny_tokenizer,
    vision_config,
)

IMAGE = SPECIALS.index("<image>")
SMALL = {"hidden_size": 16, "num_blocks": 2, "num_heads": 2}  # the paper's allocator has 27 million parameters
WIDTH = 24  # of the instruction vectors


def tiny_llava(
    tower: str = "clip",
    text: str = "llama",
    layer: Any = -2,
    strategy: str = "default",
    layers: int = 5,
    tie: bool = False,
    **config: Any,
) -> Any:
    """A random LLaVA whose picture matters: transformers starts towers and projectors next to zero."""
    torch.manual_seed(3)
    words = text_config(text)
    words.tie_word_embeddings = tie
    llava = LlavaForConditionalGeneration(
        LlavaConfig(
            vision_config=vision_config(tower, layers),
            text_config=words,
            image_token_index=IMAGE,
            vision_feature_layer=layer,
            vision_feature_select_strategy=strategy,
            **config,
        )
    ).eval()
    for part in (llava.model.vision_tower, llava.model.multi_modal_projector):
        for parameter in part.parameters():
            if parameter.dim() > 1:
                nn.init.normal_(parameter, std=0.2)
    return llava


def save(llava: Any, folder: Path, processor: bool = False) -> str:
    llava.save_pretrained(folder)
    if processor:
        images = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
        template = (
            "{% for m in messages %}{% for c in m['content'] %}{{ '<image>' if c['type'] == 'image' else c['text'] }}"
        )
        LlavaProcessor(
            images,
            tiny_tokenizer(),
            patch_size=14,
            vision_feature_select_strategy="default",
            num_additional_image_tokens=1,
            chat_template=template + "{% endfor %}{% endfor %}",
        ).save_pretrained(folder)
    return str(folder)


def save_encoder(folder: Path) -> str:
    AutoModel.from_config(instruction_config()).save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    return str(folder)


def rows(llava: Any, images: int = 2) -> dict[str, Tensor]:
    """Two samples of one picture each, four visual tokens, the second one padded on the left."""
    ids = torch.randint(4, 260, (2, 12))
    ids[:, 3:7] = IMAGE
    mask = torch.ones_like(ids)
    mask[1, :2] = 0
    return {"input_ids": ids, "attention_mask": mask, "pixel_values": torch.randn(images, 3, 28, 28)}


@torch.no_grad()
def difference(llava: Any, model: Any) -> float:
    """The largest difference of the logits, with pictures under random instructions and with text alone."""
    inputs = rows(llava)
    text = {"input_ids": torch.randint(4, 260, (2, 9))}
    worst = (llava(**text).logits - model(**text).logits).abs().max()
    expected = llava(**inputs).logits
    blind = llava(**{**inputs, "pixel_values": torch.zeros(2, 3, 28, 28)}).logits
    assert (expected - blind).abs().max() > 1e-2  # the picture matters, or this would prove nothing
    for scale in (0.0, 1.0, 30.0):
        ours = model(**inputs, instruction_embeds=scale * torch.randn(2, WIDTH))
        worst = torch.maximum(worst, (expected - ours.logits).abs().max())
        assert ours.fusion_weights.shape == (2, 4)
    return float(worst)


@pytest.mark.parametrize("text", ["llama", "qwen2"])
@pytest.mark.parametrize(
    ("tower", "layer", "strategy"),
    [
        ("clip", -2, "default"),
        ("clip", -1, "default"),
        ("clip", 1, "default"),  # 0 is an error inside transformers' LLaVA
        ("clip", -4, "default"),
        ("siglip", -2, "full"),
        ("siglip", -1, "full"),
        ("clip", [-5, -3, 1, -1], "default"),  # as Granite Vision 3 reads several
        ("siglip", [3, -2], "full"),
    ],
)
def test_outputs_are_the_source_models(tmp_path: Path, tower: str, layer: Any, strategy: str, text: str) -> None:
    llava = tiny_llava(tower, text, layer, strategy)
    conversion = retrofit_llava(save(llava, tmp_path / "llava"), instruction_dim=WIDTH, **SMALL)
    assert difference(llava, conversion.model) < 1e-5
    conversion.save(tmp_path / "ours")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    assert difference(llava, loaded) < 1e-5
    assert (loaded.config.fusion, loaded.config.fusion_kwargs["base_layer"]) == ("igva", layer)


@pytest.mark.parametrize("tie", [False, True])
def test_head_projector_and_generation_settings_are_taken_over(tmp_path: Path, tie: bool) -> None:
    llava = tiny_llava(tie=tie, multimodal_projector_bias=False, projector_hidden_act="relu")
    llava.generation_config.max_new_tokens = 7
    llava.generation_config.suppress_tokens = [9]
    source = save(llava, tmp_path / "llava")
    settings = tmp_path / "llava" / "generation_config.json"
    settings.write_text(json.dumps(json.loads(settings.read_text()) | {"temperature": 0.9, "top_p": 0.6}))
    conversion = retrofit_llava(source, instruction_dim=WIDTH, **SMALL)
    conversion.save(tmp_path / "ours")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    assert difference(llava, model) < 1e-5
    assert (model.lm_head.weight is model.get_input_embeddings().weight) == tie
    assert model.model.projector.linear_1.bias is None
    assert model.generation_config.max_new_tokens == 7
    assert model.generation_config.suppress_tokens == [IMAGE, 9]


def test_old_names_of_released_checkpoints(tmp_path: Path) -> None:
    llava = tiny_llava()
    source = save(llava, tmp_path / "llava")
    old = {
        name if "vision_model" in name else name.replace("vision_tower.", "vision_tower.vision_model."): value
        for name, value in load_file(tmp_path / "llava" / "model.safetensors").items()
    }
    assert {
        "language_model.lm_head.weight",
        "language_model.model.norm.weight",
        "multi_modal_projector.linear_1.weight",
        "vision_tower.vision_model.post_layernorm.bias",
    } <= old.keys()
    save_file(old, tmp_path / "llava" / "model.safetensors", metadata={"format": "pt"})
    assert difference(llava, retrofit_llava(source, instruction_dim=WIDTH, **SMALL).model) < 1e-5


def save_tower(folder: Path, kind: str, width: int = 32) -> str:
    config = vision_config(kind)
    config.hidden_size = width
    tower = AutoModel.from_config(config)
    for parameter in tower.parameters():
        if parameter.dim() > 1:
            nn.init.normal_(parameter, std=0.2)
    tower.save_pretrained(folder)
    tiny_image_processor(28).save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize(
    ("tower", "layer", "strategy"), [("clip", -2, "default"), ("siglip", -1, "full"), ("clip", [-4, -1], "default")]
)
def test_outputs_are_the_source_models_with_a_further_encoder(
    tmp_path: Path, tower: str, layer: Any, strategy: str
) -> None:
    """A narrower one that is given another size: what it says has no weight until training gives it some."""
    llava = tiny_llava(tower, "llama", layer, strategy)
    source = save(llava, tmp_path / "llava", processor=True)
    added = {"source": save_tower(tmp_path / "dinov2", "dinov2", 24), "image_size": 42, "layers": [2, 3, 4]}
    conversion = retrofit_llava(source, instruction_dim=WIDTH, num_groups=2, add_vision=[added], **SMALL)
    assert difference(llava, conversion.model) < 1e-5
    fusion = conversion.model.model.fusion
    assert fusion.layer_groups == ((1, 2, 3), (4, 5), (6, 7), (8,))  # none spans both encoders
    read = [6 + number for number in ([layer] if isinstance(layer, int) else layer)]
    assert [tap for (tap,) in fusion.taps[: len(read)]] == read  # those of 5 layers that LLaVA reads
    names = conversion.model.config.vision.layer_names
    assert names == [*(f"{tower}.{i}" for i in range(1, 6)), "dinov2.2", "dinov2.3", "dinov2.4"]
    conversion.save(tmp_path / "ours")
    loaded = AutoModelForImageTextToText.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    assert difference(llava, loaded) < 1e-5


@torch.no_grad()
def test_the_further_encoder_gets_its_own_pixels(tmp_path: Path) -> None:
    """The pictures come normalised for LLaVA's tower; the other one sees them as its own image processor has them."""
    source = save(tiny_llava(), tmp_path / "llava", processor=True)
    folder = tmp_path / "dinov2"
    where = save_tower(folder, "dinov2")
    own = CLIPImageProcessor(
        size={"shortest_edge": 28},
        crop_size={"height": 28, "width": 28},
        image_mean=[0.5, 0.2, 0.1],
        image_std=[0.1] * 3,
    )
    own.save_pretrained(folder)
    model = retrofit_llava(source, instruction_dim=WIDTH, num_groups=2, add_vision=[where], **SMALL).model
    picture = Image.effect_noise((28, 28), 90).convert("RGB")
    theirs = CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28})
    seen: list[Tensor] = []
    model.model.vision_tower.encoders[1].register_forward_pre_hook(lambda module, args: seen.append(args[0]))
    model.model.encode_image_layers(theirs(picture, return_tensors="pt")["pixel_values"])
    torch.testing.assert_close(seen[0], own(picture, return_tensors="pt")["pixel_values"], atol=1e-4, rtol=1e-4)


def test_training_starts_from_the_zero_half(tmp_path: Path) -> None:
    """First the projector's new columns move, and then the allocator hears of it."""
    llava = tiny_llava()
    model = retrofit_llava(save(llava, tmp_path / "llava"), instruction_dim=WIDTH, balance_coef=0.0, **SMALL).model
    inputs = rows(llava) | {"instruction_embeds": torch.randn(2, WIDTH)}
    inputs["labels"] = inputs["input_ids"].masked_fill(inputs["input_ids"] == IMAGE, -100)
    wide, key = model.model.projector.linear_1.weight, model.model.fusion.allocator.key_proj.weight
    model(**inputs).loss.backward()
    assert torch.equal(wide[:, 32:], torch.zeros(48, 32)) and wide.grad[:, 32:].abs().max() > 1e-5
    assert key.grad.count_nonzero() == 0
    with torch.no_grad():
        wide -= 0.1 * wide.grad
    model(**inputs).loss.backward()
    assert key.grad.count_nonzero() > 0


def test_the_same_source_gives_the_same_files(tmp_path: Path) -> None:
    source, digests = save(tiny_llava(), tmp_path / "llava"), []
    for seed in (1, 2):
        torch.manual_seed(seed)
        retrofit_llava(source, instruction_dim=WIDTH, **SMALL).save(tmp_path / str(seed))
        digests.append(hashlib.sha256((tmp_path / str(seed) / "model.safetensors").read_bytes()).hexdigest())
    assert digests[0] == digests[1]


def test_dtype_stays(tmp_path: Path) -> None:
    source = save(tiny_llava().to(torch.bfloat16), tmp_path / "llava")
    model = retrofit_llava(source, save_encoder(tmp_path / "encoder"), **SMALL).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_without_an_encoder_the_width_is_the_papers(tmp_path: Path) -> None:
    conversion = retrofit_llava(save(tiny_llava(), tmp_path / "llava"), **SMALL)
    assert conversion.model.config.instruction_dim == 768
    assert conversion.processor is None and "no tokenizer" in conversion.notes[0]
    tiny_tokenizer().save_pretrained(tmp_path / "llava")
    assert "preprocessor_config.json" in retrofit_llava(str(tmp_path / "llava"), **SMALL).notes[0]


def test_the_processor_is_taken_over(tmp_path: Path) -> None:
    """The same words and any picture give the same tokens, pixels and answer as LLaVA's own processor."""
    llava = tiny_llava()
    source = save(llava, tmp_path / "llava", processor=True)
    retrofit_llava(source, save_encoder(tmp_path / "encoder"), **SMALL).save(tmp_path / "ours")
    processor = AutoProcessor.from_pretrained(tmp_path / "ours")
    assert isinstance(processor, IgvaProcessor)
    picture = Image.effect_noise((60, 40), 90).convert("RGB")
    content = [{"type": "image", "image": picture}, {"type": "text", "text": "What is it?"}]
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    ours = processor.apply_chat_template([{"role": "user", "content": content}], **options)
    theirs = AutoProcessor.from_pretrained(source).apply_chat_template(
        [{"role": "user", "content": content}], **options
    )
    assert torch.equal(ours["input_ids"], theirs["input_ids"])
    torch.testing.assert_close(ours["pixel_values"], theirs["pixel_values"])
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    length = {"max_new_tokens": 5, "suppress_tokens": [IMAGE]}
    assert torch.equal(model.generate(**ours, **length), llava.generate(**theirs, **length))


def test_what_is_refused(tmp_path: Path) -> None:
    def refused(source: str, encoder: str | None = None, **options: Any) -> str:
        with pytest.raises(UserError) as caught:
            retrofit_llava(source, encoder, **{**SMALL, **options})
        assert "\n" not in str(caught.value)
        return str(caught.value)

    good = save(tiny_llava(), tmp_path / "llava")
    assert "--num-groups from 1 to 5" in refused(good, num_groups=6)
    assert "--num-groups" in refused(good, num_groups=0)
    assert "no option 'depth'" in refused(good, depth=3)
    encoder = save_encoder(tmp_path / "encoder")
    assert "--instruction-dim 25" in refused(good, encoder, instruction_dim=25)
    assert "--instruction-encoder" in refused(good, str(tmp_path / "nowhere"))
    assert "cannot be loaded" in refused("nobody/nothing")
    assert "has no image processor" in refused(good, add_vision=["embedded:efficientnet"])
    whole = save(tiny_llava(), tmp_path / "whole", processor=True)
    assert "names no encoder" in refused(whole, add_vision=[3])
    added = save_tower(tmp_path / "added", "dinov2")
    assert "encoder dinov2: cannot split 4 layers into 5 groups" in refused(whole, add_vision=[added], num_groups=5)
    assert "layer 9 does not exist" in refused(save(tiny_llava(layer=9), tmp_path / "nine"))
    save_file({}, tmp_path / "whole" / "model.safetensors", metadata={"format": "pt"})
    assert "lacks the weights" in refused(whole)

"""``import_official``: what the published code computed, ours computes from the same file."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors
from torch import Tensor, nn
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForImageTextToText,
    AutoProcessor,
    CLIPImageProcessor,
    CLIPVisionModel,
    PreTrainedTokenizerFast,
)

from igva.checkpoints.official import TEXT_TYPES, import_official
from igva.errors import UserError
from igva.model.processing_igva import IgvaProcessor
from igva.testing import instruction_config, text_config, tiny_tokenizer, vision_config

GOLDEN = Path(__file__).parent / "golden_official"
SENTINEL = -200  # the published code's image placeholder
WIDTH, HEADS, BLOCKS, EMBED = 16, 2, 2, 24  # of the aggregator in the checkpoints made here
VOCABULARY = 260


# --- the golden checkpoint ----------------------------------------------------------------------------------------


def expand(row: Tensor, values: Tensor, value: int, count: int) -> Tensor:
    """``values (S,)`` with the sentinel's place in ``row`` replaced by ``count`` times ``value``."""
    at = int((row == SENTINEL).nonzero())
    return torch.cat([values[:at], values.new_full((count,), value), values[at + 1 :]])


@pytest.fixture(scope="module")
def golden() -> dict[str, Tensor]:
    """Inputs and outputs of the published code, the inputs with 16 placeholders for each sentinel."""
    data = load_file(GOLDEN / "expected.safetensors")
    rows = data["input_ids"]
    data["labels"] = torch.stack([expand(row, one, -100, 16) for row, one in zip(rows, data["labels"], strict=True)])
    data["input_ids"] = torch.stack([expand(row, row, 320, 16) for row in rows])
    return data


@pytest.fixture(scope="module", params=["imported", "saved and loaded"])
def golden_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    conversion = import_official(GOLDEN / "checkpoint", str(GOLDEN / "clip"))
    if request.param == "imported":
        return conversion.model
    folder = tmp_path_factory.mktemp("golden")
    conversion.save(folder)
    return AutoModelForImageTextToText.from_pretrained(folder, dtype=torch.float32)


@torch.no_grad()
def test_equals_the_published_code(golden_model: Any, golden: dict[str, Tensor]) -> None:
    inputs = {"pixel_values": golden["pixel_values"], "instruction_embeds": golden["sentence_embeds"]}
    features = golden_model.get_image_features(**inputs)
    torch.testing.assert_close(features.fusion_weights, golden["weights"], atol=1e-5, rtol=0)
    torch.testing.assert_close(torch.stack(features.pooler_output), golden["image_features"], atol=1e-4, rtol=0)
    output = golden_model(input_ids=golden["input_ids"], labels=golden["labels"], **inputs)
    old = output.logits[..., :320]
    torch.testing.assert_close(old, golden["logits"], atol=1e-4, rtol=0)
    loss = nn.functional.cross_entropy(old[:, :-1].flatten(0, 1), golden["labels"][:, 1:].flatten())
    torch.testing.assert_close(loss[None], golden["loss"], atol=1e-5, rtol=0)
    # Our own loss has the image token's logit, zero, in its softmax: one of 321 here, one of 32001 in a real model.
    assert 0 < float(output.loss - golden["loss"]) < 1e-2


def test_the_image_token_comes_after_the_old_vocabulary(golden_model: Any) -> None:
    assert golden_model.config.image_token_id == 320
    assert golden_model.config.text_config.vocab_size == 321
    assert golden_model.generation_config.suppress_tokens == [320]
    assert golden_model.get_input_embeddings().weight[320].count_nonzero() == 0
    assert golden_model.lm_head.weight[320].count_nonzero() == 0


# --- checkpoints of other shapes ----------------------------------------------------------------------------------


class Block(nn.Module):
    """The aggregator's block, under the published code's names."""

    def __init__(self) -> None:
        super().__init__()
        self.cross_attention = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.norm1, self.norm2 = nn.LayerNorm(WIDTH), nn.LayerNorm(WIDTH)
        self.ffn = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH))

    def forward(self, x: Tensor, keys: Tensor) -> Tensor:
        x = self.norm1(x + self.cross_attention(x, keys, keys)[0])
        return self.norm2(x + self.ffn(x))


class Aggregator(nn.Module):
    def __init__(self, groups: int) -> None:
        super().__init__()
        self.cls_proj, self.sentence_proj = nn.Linear(32, WIDTH), nn.Linear(EMBED, WIDTH)
        self.transformers = nn.ModuleList([Block() for _ in range(BLOCKS)])
        self.linear = nn.Linear(WIDTH, groups)

    def forward(self, cls: Tensor, sentence: Tensor) -> Tensor:
        x, keys = self.sentence_proj(sentence)[:, None], self.cls_proj(cls)
        for block in self.transformers:
            x = block(x, keys)
        return self.linear(x[:, 0]).softmax(-1)


class Official:
    """A random model of the published code: it can be saved as that code does, and computes what it computes."""

    def __init__(self, groups: list[list[int]], base: int, average: bool = False, kind: str = "llava_llama") -> None:
        torch.manual_seed(1)
        self.groups, self.base, self.kind = groups, base, kind
        self.tower = CLIPVisionModel(vision_config("clip", layers=6)).eval()
        for name, parameter in self.tower.named_parameters():  # towers start so small that every layer is alike
            if "layernorm" not in name and "layer_norm" not in name:
                nn.init.normal_(parameter, std=0.3)
        self.language = AutoModelForCausalLM.from_config(text_config(TEXT_TYPES[kind], VOCABULARY)).eval()
        self.projector = nn.Sequential(nn.Linear(64, 48), nn.GELU(), nn.Linear(48, 48))
        self.aggregator = None if average else Aggregator(len(groups))

    def config(self) -> dict[str, Any]:
        text = self.language.config.to_dict()
        keep = ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads", "num_key_value_heads")
        config: dict[str, Any] = {
            "model_type": self.kind,
            **{name: text[name] for name in (*keep, "vocab_size", "head_dim", "rms_norm_eps") if name in text},
            "rope_theta": 10000.0,
            "rope_scaling": None,
            "vit_aggregate_groups": str(self.groups),
            "vit_base_layer": self.base,
            "aggregate_by_average": self.aggregator is None,
            "mm_vision_tower": "somewhere",
            "mm_projector_type": "mlp2x_gelu",
            "image_aspect_ratio": "pad",
        }
        if self.aggregator is not None:
            config |= {
                "sentence_embed_dim": EMBED,
                "aggregator_hidden_dim": WIDTH,
                "aggregator_num_heads": HEADS,
                "aggregator_num_transformers": BLOCKS,
            }
        return config

    def tensors(self, tower_prefix: str | None) -> dict[str, Tensor]:
        parts: dict[str, nn.Module] = {"": self.language, "model.mm_projector.": self.projector}
        if self.aggregator is not None:
            parts["model.vision_aggregator."] = self.aggregator
        if tower_prefix is not None:
            parts[tower_prefix] = self.tower
        return {
            prefix + name: tensor.clone()
            for prefix, part in parts.items()
            for name, tensor in part.state_dict().items()
        }

    def save(
        self,
        folder: Path,
        tower_prefix: str | None = "model.vision_tower.vision_tower.vision_model.",
        shards: int = 1,
        extra: dict[str, Tensor] | None = None,
        settings: dict[str, Any] | None = None,
    ) -> Path:
        """Write the checkpoint; without ``tower_prefix`` the tower's weights are left out."""
        folder.mkdir(parents=True)
        (folder / "config.json").write_text(json.dumps(self.config() | (settings or {})))
        tensors = {**self.tensors(tower_prefix), **(extra or {})}
        if shards == 1:
            save_file(tensors, folder / "model.safetensors")
            return folder
        weight_map = {name: f"model-{i % shards + 1:05}-of-{shards:05}.safetensors" for i, name in enumerate(tensors)}
        for file in set(weight_map.values()):
            save_file({name: tensors[name] for name, where in weight_map.items() if where == file}, folder / file)
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
        return folder

    def save_tower(self, folder: Path) -> str:
        self.tower.save_pretrained(folder)
        CLIPImageProcessor(size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}).save_pretrained(folder)
        return str(folder)

    @torch.no_grad()
    def logits(self, pixels: Tensor, sentence: Tensor, ids: Tensor) -> Tensor:
        """``ids (B, S)``: the first four places are the picture's."""
        states = self.tower(pixels, output_hidden_states=True).hidden_states
        means = torch.stack([torch.stack([states[i] for i in group]).mean(0) for group in self.groups], 1)
        weights = torch.full(means.shape[:2], 1 / len(self.groups))
        if self.aggregator is not None:
            weights = self.aggregator(means[:, :, 0], sentence)
        fused = (weights[..., None, None] * means[:, :, 1:]).sum(1)
        visual = self.projector(torch.cat([states[self.base][:, 1:], fused], -1))
        words = self.language.get_input_embeddings()(ids[:, 4:])
        return self.language(inputs_embeds=torch.cat([visual, words], 1)).logits


UNEQUAL = [[1], [2, 3, 4], [5, 6]]


@torch.no_grad()
def check_equal(official: Official, model: Any) -> None:
    """The model computes what the published code would."""
    pixels, sentence = torch.randn(2, 3, 28, 28), torch.randn(2, EMBED)
    ids = torch.randint(0, VOCABULARY, (2, 10))
    ids[:, :4] = model.config.image_token_id
    expected = official.logits(pixels, sentence, ids)
    output = model(input_ids=ids, pixel_values=pixels, instruction_embeds=sentence)
    torch.testing.assert_close(output.logits[..., :VOCABULARY], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("kind", sorted(TEXT_TYPES))
@pytest.mark.parametrize(
    "prefix",
    [
        "model.vision_tower.vision_tower.vision_model.",
        "model.vision_tower.vision_tower.",
        None,
    ],
)
def test_unequal_groups_another_base_and_shards(tmp_path: Path, kind: str, prefix: str | None) -> None:
    official = Official(UNEQUAL, base=-3, kind=kind)
    source = official.save(tmp_path / "checkpoint", prefix, shards=3)
    conversion = import_official(source, official.save_tower(tmp_path / "clip"))
    assert conversion.model.model.fusion.layer_groups == ((1,), (2, 3, 4), (5, 6))
    assert conversion.to_train == "nothing"
    check_equal(official, conversion.model)
    conversion.save(tmp_path / "ours")
    check_equal(official, AutoModelForImageTextToText.from_pretrained(tmp_path / "ours", dtype=torch.float32))


@pytest.mark.parametrize("leftover", [False, True])
def test_average(tmp_path: Path, leftover: bool) -> None:
    official = Official(UNEQUAL, base=2, average=True)
    extra = {"model.vision_aggregator." + k: v for k, v in Aggregator(3).state_dict().items()} if leftover else {}
    source = official.save(tmp_path / "checkpoint", extra=extra)
    conversion = import_official(source, official.save_tower(tmp_path / "clip"))
    assert conversion.model.config.fusion == "mean"
    assert any("aggregator weights left out" in note for note in conversion.notes) == leftover
    check_equal(official, conversion.model)


def test_the_tower_named_in_the_checkpoint_is_found(tmp_path: Path) -> None:
    official = Official(UNEQUAL, base=-2)
    tower = official.save_tower(tmp_path / "clip")
    source = official.save(tmp_path / "checkpoint", None, settings={"mm_vision_tower": tower})
    check_equal(official, import_official(source).model)


def test_dtype_stays_and_recomputed_buffers_are_ignored(tmp_path: Path) -> None:
    official = Official(UNEQUAL, base=-2)
    official.language.to(torch.bfloat16)
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(6),
        "model.vision_tower.vision_tower.vision_model.embeddings.position_ids": torch.arange(5)[None],
    }
    source = official.save(tmp_path / "checkpoint", extra=extra)
    model = import_official(source, official.save_tower(tmp_path / "clip")).model
    assert {parameter.dtype for parameter in model.parameters()} == {torch.bfloat16}


def test_tied_embeddings_and_rope_scaling(tmp_path: Path) -> None:
    official = Official(UNEQUAL, base=-2)
    official.language.lm_head.weight = official.language.get_input_embeddings().weight
    settings = {"tie_word_embeddings": True, "rope_theta": 5000.0, "rope_scaling": {"type": "linear", "factor": 2.0}}
    source = official.save(tmp_path / "checkpoint", settings=settings)
    model = import_official(source, official.save_tower(tmp_path / "clip")).model
    assert model.lm_head.weight is model.get_input_embeddings().weight
    rope = model.config.text_config.rope_parameters
    assert (rope["rope_theta"], rope["rope_type"], rope["factor"]) == (5000.0, "linear", 2.0)


# --- sentence encoder and processor -------------------------------------------------------------------------------


def save_encoder(folder: Path) -> Any:
    """A sentence-transformers folder: cls pooling, no normalisation."""
    torch.manual_seed(2)
    from transformers import AutoModel

    encoder = AutoModel.from_config(instruction_config()).eval()
    encoder.save_pretrained(folder)
    tiny_tokenizer().save_pretrained(folder)
    kinds = [("", "Transformer"), ("1_Pooling", "Pooling")]
    modules = [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in kinds]
    (folder / "modules.json").write_text(json.dumps(modules))
    (folder / "1_Pooling").mkdir()
    (folder / "1_Pooling" / "config.json").write_text(json.dumps({"pooling_mode_cls_token": True}))
    return encoder


def save_vicuna_tokenizer(folder: Path) -> None:
    """256 bytes and Llama's three special tokens; no image token, no chat template."""
    specials = ["<unk>", "<s>", "</s>"]
    vocabulary = {token: i for i, token in enumerate([*specials, *sorted(pre_tokenizers.ByteLevel.alphabet())])}
    core = Tokenizer(models.BPE(vocab=vocabulary, merges=[], unk_token="<unk>"))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    core.decoder = decoders.ByteLevel()
    core.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    PreTrainedTokenizerFast(
        tokenizer_object=core, unk_token="<unk>", bos_token="<s>", eos_token="</s>"
    ).save_pretrained(folder)


def test_a_full_processor_where_the_source_has_a_tokenizer(tmp_path: Path) -> None:
    official = Official(UNEQUAL, base=-2)
    encoder = save_encoder(tmp_path / "encoder")
    source = official.save(tmp_path / "checkpoint")
    save_vicuna_tokenizer(source)
    conversion = import_official(source, official.save_tower(tmp_path / "clip"), str(tmp_path / "encoder"))
    assert conversion.notes == []
    conversion.save(tmp_path / "ours")
    model = AutoModelForImageTextToText.from_pretrained(tmp_path / "ours", dtype=torch.float32)
    processor = AutoProcessor.from_pretrained(tmp_path / "ours")
    assert isinstance(processor, IgvaProcessor)
    assert model.config.instruction_pooling == "cls" and not model.config.instruction_normalize
    for ours, theirs in zip(model.model.instruction_encoder.parameters(), encoder.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    content = [{"type": "image", "image": Image.new("RGB", (30, 20))}, {"type": "text", "text": "What?"}]
    inputs = processor.apply_chat_template(
        [{"role": "user", "content": content}],
        tokenize=True,
        return_dict=True,
        return_tensors="pt",
        add_generation_prompt=True,
    )
    text = processor.tokenizer.decode(inputs["input_ids"][0])
    assert text.startswith("<s>A chat between a curious human") and text.endswith("What? ASSISTANT:")
    assert int((inputs["input_ids"] == model.config.image_token_id).sum()) == 4
    assert model.generate(**inputs, max_new_tokens=3).shape[1] > inputs["input_ids"].shape[1]
    check_equal(official, model)


@pytest.mark.parametrize("wanted", [False, True])
def test_a_sentence_encoder_inside_the_checkpoint(tmp_path: Path, wanted: bool) -> None:
    """The published code saves it when a loaded model is saved again; it may have been tuned."""
    official = Official(UNEQUAL, base=-2)
    encoder = save_encoder(tmp_path / "encoder")
    inside = {f"model.sentence_embedder.0.auto_model.{k}": v + 1 for k, v in encoder.state_dict().items()}
    source = official.save(tmp_path / "checkpoint", extra=inside)
    conversion = import_official(
        source, official.save_tower(tmp_path / "clip"), str(tmp_path / "encoder") if wanted else None
    )
    if not wanted:
        assert conversion.model.config.instruction_dim == EMBED
        assert any("sentence encoder left out" in note for note in conversion.notes)
        return
    for ours, theirs in zip(conversion.model.model.instruction_encoder.parameters(), encoder.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs + 1)


def test_without_image_settings_there_is_no_processor(tmp_path: Path) -> None:
    official = Official(UNEQUAL, base=-2)
    source = official.save(tmp_path / "checkpoint")
    save_vicuna_tokenizer(source)
    official.tower.save_pretrained(tmp_path / "clip")
    conversion = import_official(source, str(tmp_path / "clip"))
    assert conversion.processor is None
    assert any("preprocessor_config.json" in note for note in conversion.notes)
    assert conversion.model.config.image_token_id == 259  # the first free place of a vocabulary of 260


# --- what is fatal ------------------------------------------------------------------------------------------------


def refused(source: Path, tower: str | None, encoder: str | None = None) -> str:
    with pytest.raises(UserError) as caught:
        import_official(source, tower, encoder)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_do_not_fit_are_named(tmp_path: Path) -> None:
    official = Official(UNEQUAL, base=-2)
    tower = official.save_tower(tmp_path / "clip")
    odd = official.save(tmp_path / "odd", extra={"model.image_newline": torch.zeros(48)})
    assert "model.image_newline" in refused(odd, tower)
    more = official.save(tmp_path / "more", extra={"model.layers.2.mlp.up_proj.weight": torch.zeros(64, 48)})
    assert "model.layers.2.mlp.up_proj.weight" in refused(more, tower)
    twice = official.save(
        tmp_path / "twice", extra={"model.vision_tower.vision_tower.pre_layrnorm.bias": torch.ones(32)}
    )
    assert "same weight" in refused(twice, tower)
    wide = official.save(tmp_path / "wide", extra={"model.mm_projector.0.weight": torch.zeros(48, 32)})
    assert "model.mm_projector.0.weight has the shape [48, 32]" in refused(wide, tower)
    heads = official.save(tmp_path / "heads", settings={"aggregator_num_heads": 3})
    assert "num_heads 3" in refused(heads, tower)


@pytest.mark.parametrize(
    "name",
    [
        "model.vision_aggregator.transformers.1.norm2.bias",
        "model.vision_aggregator.transformers.0.cross_attention.in_proj_weight",
        "model.vision_aggregator.transformers.0.ffn.2.weight",
        "model.vision_aggregator.sentence_proj.bias",
        "model.vision_tower.vision_tower.vision_model.pre_layrnorm.bias",
        "model.mm_projector.2.bias",
        "model.layers.1.mlp.up_proj.weight",
        "model.embed_tokens.weight",
        "lm_head.weight",
    ],
)
def test_a_missing_weight_is_named_as_the_checkpoint_would(tmp_path: Path, name: str) -> None:
    official = Official(UNEQUAL, base=-2)
    source = official.save(tmp_path / "checkpoint")
    tensors = load_file(source / "model.safetensors")
    del tensors[name]
    save_file(tensors, source / "model.safetensors")
    assert name in refused(source, official.save_tower(tmp_path / "clip"))


def test_files_that_are_missing_or_damaged(tmp_path: Path) -> None:
    official = Official(UNEQUAL, base=-2)
    tower = official.save_tower(tmp_path / "clip")
    lost = official.save(tmp_path / "lost", shards=2)
    (lost / "model-00002-of-00002.safetensors").unlink()
    assert "model-00002-of-00002.safetensors is missing" in refused(lost, tower)
    (lost / "model.safetensors.index.json").write_text("{}")
    assert "index.json is damaged" in refused(lost, tower)
    cut = official.save(tmp_path / "cut")
    (cut / "model.safetensors").write_bytes(b"0123456789")
    assert "is damaged" in refused(cut, tower)
    (cut / "config.json").write_text("{")
    assert "is not JSON" in refused(cut, tower)


def test_towers_and_encoders_that_do_not_fit(tmp_path: Path) -> None:
    official = Official(UNEQUAL, base=-2)
    tower = official.save_tower(tmp_path / "clip")
    source = official.save(tmp_path / "checkpoint", None)
    assert "--vision-tower" in refused(source, None)
    assert "--vision-tower" in refused(source, str(tmp_path / "nowhere"))
    AutoConfig.for_model("bert").save_pretrained(tmp_path / "bert")
    assert "uses CLIP" in refused(source, str(tmp_path / "bert"))
    (tmp_path / "clip" / "model.safetensors").rename(tmp_path / "clip" / "pytorch_model.bin")
    assert "pickled weights" in refused(source, tower)
    save_file({}, tmp_path / "clip" / "model.safetensors", metadata={"format": "pt"})
    assert "lacks" in refused(source, tower)
    save_encoder(tmp_path / "encoder")
    other = official.save(tmp_path / "other", settings={"sentence_embed_dim": 32})
    assert "width 24" in refused(other, tower, str(tmp_path / "encoder"))
    (tmp_path / "encoder" / "model.safetensors").rename(tmp_path / "encoder" / "pytorch_model.bin")
    assert "pickled weights" in refused(other, tower, str(tmp_path / "encoder"))

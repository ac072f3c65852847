"""``load()`` a model and ``answer()`` a question about pictures: the command line, server and evaluation use these."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from safetensors import SafetensorError
from transformers import AutoModelForImageTextToText, AutoProcessor
from transformers.generation.streamers import TextStreamer

from igva.checkpoints.catalog import MODELS
from igva.data.images import open_image
from igva.errors import UserError, first_line
from igva.layer_names import group_label, layer_names
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.paths import is_missing_folder
from igva.untrusted import check_model_folder

ImageLike = str | Path | Image.Image
COLDEST = 1e-4  # a temperature: of the logits, single precision leaves nothing to draw by below


class ChatRefused(UserError):
    """The model's chat template does not take a chat."""


@dataclass(frozen=True)
class SamplingOptions:
    """How an answer's words are drawn.

    Attributes:
        temperature: 0 takes the likeliest word every time, and so does whatever is nearer to it than ``COLDEST``.
        top_p: of the likeliest words, those that have this share together.
        seed: the same seed, prompt and settings draw the same answer; None: another each time.
    """

    temperature: float = 0.0
    top_p: float = 1.0
    seed: int | None = None

    def options(self) -> dict[str, Any]:
        """Options of ``generate()``, in place of the checkpoint's own; what that says of repetition stays."""
        if self.temperature < COLDEST:
            return {
                "do_sample": False,
                "num_beams": 1,
                "temperature": None,
                "top_p": None,
                "top_k": None,
                "min_p": None,
            }
        chosen = {"temperature": self.temperature, "top_p": self.top_p, "top_k": 0, "min_p": None}
        return {"do_sample": True, "num_beams": 1, **chosen}


@dataclass
class Answer:
    """An answer and how it came about.

    Attributes:
        answer: the model's words.
        model: name or path the model was loaded from.
        layer_groups: the layers of each group, or empty where the fusion has none.
        layer_names: what each group is called where the tower's layers have names; None: they have numbers only.
        layer_weights: one number per group for one picture, one row per picture for several; None where the
            fusion has no weights. Per-patch weights are averaged over the patches.
        timings: seconds: ``load_s``, ``encode_s`` (pictures and instruction), ``first_token_s`` (from the call),
            ``total_s``.
    """

    answer: str
    model: str
    layer_groups: list[list[int]]
    layer_names: list[str] | None
    layer_weights: list[float] | list[list[float]] | None
    timings: dict[str, float]

    def weight_rows(self) -> list[list[float]]:
        """The weights as one row per picture, however many there are."""
        rows: list[Any] = self.layer_weights or []
        return rows if rows and isinstance(rows[0], list) else [rows]

    def group_labels(self) -> list[str]:
        """Each group in words: by its name, else by its layers' numbers."""
        return self.layer_names or [group_label(group) for group in self.layer_groups]

    def to_json(self) -> dict[str, Any]:
        """Plain values, in the field order above; ``layer_names`` is left out where there are none."""
        return {key: value for key, value in asdict(self).items() if key != "layer_names" or value is not None}


def load(
    name_or_path: str | Path = "tiny",
    device: str | None = None,
    dtype: str | torch.dtype | None = None,
    *,
    to_answer: bool = True,
) -> tuple[IgvaForConditionalGeneration, IgvaProcessor]:
    """Load a model by name, folder or hub id.

    Args:
        name_or_path: a name of ``igva models``, a folder, or a hub id.
        device: default: the GPU if there is one, else the CPU.
        dtype: default: float32 on the CPU, bfloat16 elsewhere; ``auto``: as it was saved.
        to_answer: whether it is to answer questions, for which it may need a sentence encoder.

    Raises:
        UserError: no such model, a folder without weights or sentence encoder, or a device that is not there.
    """
    where = torch.device(_pick_device(device))
    what = "auto" if dtype == "auto" else _pick_dtype(dtype, where)
    folder = resolve_model(name_or_path)
    try:
        model = AutoModelForImageTextToText.from_pretrained(
            folder, dtype=what, use_safetensors=True, trust_remote_code=False
        )
        processor = AutoProcessor.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError, RuntimeError, SafetensorError) as error:
        raise UserError(f"{name_or_path} cannot be loaded: {first_line(error)}") from error
    if not isinstance(model, IgvaForConditionalGeneration) or not isinstance(processor, IgvaProcessor):
        raise UserError(
            f"{name_or_path} is a {type(model).__name__}, not an igva model: "
            "`igva convert llava` makes one of a LLaVA checkpoint"
        )
    if to_answer and model.model.fusion.needs_instruction and model.model.instruction_encoder is None:
        raise UserError(
            f"{name_or_path} has no sentence encoder for the questions: convert it again with --instruction-encoder "
            "embedded:instruction, or load it with from_pretrained and pass instruction_embeds"
        )
    return model.to(where).eval(), processor


def resolve_model(name_or_path: str | Path) -> str:
    """The folder or hub id behind a name; the embedded models are fetched and converted when first asked for.

    Raises:
        UserError: neither a known name nor a folder with a model nor the form of a hub id.
    """
    name = str(name_or_path)
    if name in MODELS:
        return str(MODELS[name].folder())
    path = Path(name).expanduser()
    if path.exists():
        check_model_folder(path)
        return str(path)
    if name.count("/") == 1 and not name.startswith((".", "/", "~")) and not is_missing_folder(name):
        return name
    raise UserError(f"there is no model {name!r}: `igva models` lists the names, or give a folder")


def answer(
    model: IgvaForConditionalGeneration,
    processor: IgvaProcessor,
    image: ImageLike | Sequence[ImageLike],
    question: str,
    *,
    max_new_tokens: int = 64,
    sampling: SamplingOptions | None = None,
    name: str = "",
    load_s: float = 0.0,
) -> Answer:
    """Answer a question about one picture or several.

    Args:
        image: path, PIL image, or a list of them.
        sampling: how words are drawn; None: as the checkpoint's generation settings say.
        name, load_s: only passed through to the result.

    Raises:
        UserError: an empty question or an unreadable picture.
    """
    question = question.strip()
    if not question:
        raise UserError("the question is empty: say what you want to know about the picture")
    images = [image] if isinstance(image, (str, Path, Image.Image)) else list(image)
    pictures = [i if isinstance(i, Image.Image) else open_image(i) for i in images]
    chat = [user_turn(question, pictures)]
    return reply(model, processor, chat, max_new_tokens, sampling=sampling, name=name, load_s=load_s)


def user_turn(question: str, pictures: Sequence[Image.Image | None] = ()) -> dict[str, Any]:
    """The chat message that shows pictures and then asks."""
    content: list[dict[str, Any]] = [{"type": "image", "image": picture} for picture in pictures]
    return {"role": "user", "content": [*content, {"type": "text", "text": question}]}


def reply(
    model: IgvaForConditionalGeneration,
    processor: IgvaProcessor,
    chat: list[dict[str, Any]],
    max_new_tokens: int = 64,
    *,
    sampling: SamplingOptions | None = None,
    on_text: Callable[[str], None] | None = None,
    name: str = "",
    load_s: float = 0.0,
) -> Answer:
    """Answer the last turn of a chat.

    Args:
        chat: messages as ``IgvaProcessor.apply_chat_template`` takes them, pictures as PIL images.
        sampling: how words are drawn; None: as the checkpoint's generation settings say.
        on_text: is told each piece of the answer as it comes.
        name, load_s: only passed through to the result.

    Raises:
        ChatRefused: the chat template does not take such a chat.
    """
    start = time.perf_counter()
    inputs = _inputs(processor, chat).to(model.device)
    listener = _Listener(processor.tokenizer, on_text)
    with torch.inference_mode(), torch.random.fork_rng(enabled=sampling is not None and sampling.seed is not None):
        if sampling is not None and sampling.seed is not None:
            torch.manual_seed(sampling.seed)
        image_inputs = {k: inputs.pop(k) for k in list(inputs) if k not in ("input_ids", "attention_mask")}
        features = model.get_image_features(**image_inputs) if image_inputs else None
        encoded = time.perf_counter()
        ids = model.generate(
            **inputs,
            mm_encoder_outputs={"image": features} if features is not None else None,
            max_new_tokens=max_new_tokens,
            streamer=listener,
            **(sampling.options() if sampling is not None else {}),
        )
    words = processor.tokenizer.decode(ids[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()
    end = time.perf_counter()
    groups, names, weights = layer_weights(model, features)
    return Answer(
        answer=words,
        model=name,
        layer_groups=groups,
        layer_names=names,
        layer_weights=weights[0] if weights is not None and len(weights) == 1 else weights,
        timings={
            "load_s": round(load_s, 3),
            "encode_s": round(encoded - start, 3),
            "first_token_s": round((listener.first or end) - start, 3),
            "total_s": round(end - start + load_s, 3),
        },
    )


@torch.inference_mode()
def answer_chats(
    model: IgvaForConditionalGeneration,
    processor: IgvaProcessor,
    chats: list[list[dict[str, Any]]],
    max_new_tokens: int,
    zero_images: bool = False,
) -> list[str]:
    """Answer several chats as one batch, each with its likeliest words.

    Args:
        zero_images: give the model zeros in place of every picture's features: how a blind control is asked.

    Raises:
        ChatRefused: the chat template does not take such chats.
    """
    inputs = _inputs(processor, chats, padding=True).to(model.device)
    if zero_images:
        layers = model.model.encode_image_layers(inputs.pop("pixel_values"))
        inputs["layer_patches"] = torch.zeros_like(layers.patches)
        inputs["layer_descriptors"] = torch.zeros_like(layers.descriptors)
    ids = model.generate(**inputs, max_new_tokens=max_new_tokens, do_sample=False, num_beams=1)
    new = ids[:, inputs["input_ids"].shape[1] :]
    return [text.strip() for text in processor.tokenizer.batch_decode(new, skip_special_tokens=True)]


def _inputs(processor: IgvaProcessor, chats: list[Any], **options: Any) -> Any:
    """What the model takes, of one chat or several."""
    try:
        return processor.apply_chat_template(
            chats, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True, **options
        )
    except ValueError as error:
        raise ChatRefused(f"{error}: mend chat_template.jinja in the model's folder, or take another model") from error


def layer_weights(model: Any, features: Any) -> tuple[list[list[int]], list[str] | None, list[list[float]] | None]:
    """The layer groups of a model's fusion, what they are called, and per picture the weight of each.

    Returns:
        The layers of each group, its name (None: layers have numbers only), and a row of weights per picture, averaged
        over the patches (None: the fusion has no weights).
    """
    groups = [list(group) for group in model.model.fusion.layer_groups]
    named = layer_names(model.config)
    names = None if named is None else [group_label(group, named) for group in groups]
    weights = features.fusion_weights if features is not None else None
    if weights is None:
        return groups, names, None
    rows = weights.float().mean(dim=1) if weights.dim() == 3 else weights.float()
    return groups, names, [[round(value, 4) for value in row] for row in rows.tolist()]


class _Listener(TextStreamer):
    """Notes when the first new token came, and hands the text on."""

    def __init__(self, tokenizer: Any, on_text: Callable[[str], None] | None):
        super().__init__(tokenizer, skip_prompt=True, skip_special_tokens=True)
        self._prompt_seen = False
        self._on_text = on_text
        self.first: float | None = None

    def put(self, value: Any) -> None:
        if self._prompt_seen and self.first is None:
            self.first = time.perf_counter()
        self._prompt_seen = True
        if self._on_text is not None:
            super().put(value)

    def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
        if self._on_text is not None:
            self._on_text(text)


def _pick_device(device: str | None) -> str:
    if device is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = device.split(":")[0]
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind not in there:
        raise UserError(f"there is no device {device!r}: use cpu, cuda, cuda:N or mps")
    if not there[kind]:
        raise UserError(f"device {device!r} is not available here: use --device cpu")
    return device


def _pick_dtype(dtype: str | torch.dtype | None, device: torch.device) -> torch.dtype:
    if isinstance(dtype, torch.dtype):
        return dtype
    if dtype is None:
        return torch.float32 if device.type == "cpu" else torch.bfloat16
    names = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if dtype not in names:
        raise UserError(f"there is no dtype {dtype!r}: use {', '.join(names)}")
    return names[dtype]

"""What do length grouping, packing and cached features bring? Samples per second of whole training steps.

    python benchmarks/train.py [--rounds 5] [--samples 96] [--pool 2] [--threads N] [--json]

Stage 2 (allocator, projector and language model are trained) on the CPU in float32, batches of 8, with igva's own
data set, collator, sampler, caches and model, and AdamW. Each variant adds one thing to the one before:

- ``plain``: shuffled batches, padded to their longest sample; the vision tower and the sentence encoder run in every
  step. What LLaVA's own loop does where nothing is grouped.
- ``grouped``: batches of one modality and of like length. A hundred samples give it little to choose from, so some
  padding stays; in 10,000 of the same mix it lowers padding from 47 % to 2 %, about where packing takes any order.
- ``packed``: the samples of a batch share rows of at most 1,024 tokens; each attends to itself alone.
- ``cached``: layer means and sentence vectors come from the cache. Filling it takes as long as one pass of both
  encoders over the data; it is timed beside, and pays from the second epoch or the second run on.

All of them compute logits only where something is learnt, as igva's trainer does: LLaVA's loop computes all of them,
so ``plain`` is faster than that. First the loss of each sample, packed and padded, is checked to be the same.

**Sizes.** Everything is a quarter as long as in LLaVA-1.5, so that width and length keep about their proportion in a
model that a CPU trains. The tower reads 12 × 12 patches for CLIP-L/14-336's 24 × 24, and has 0.85 parameters per
parameter of the language model's blocks: CLIP-L's 0.30 billion in front of Qwen2.5-0.5B's 0.36. Visual tokens are
pooled 2 × 2, as in the recipes that igva ships; ``--pool 1`` is LLaVA-1.5's own setting, where a picture's tokens are
most of every sample, all samples are of more like length, and there is less padding to save. The larger the language
model, the less there is to gain from cached features: in front of 7 billion parameters the tower is a few per cent of
a step.

**Lengths.** The data is modelled on LLaVA-1.5's 665k mix. The shares are those of its sources (table 7 of arXiv
2310.03744; 40,688 of its 665,298 samples have no picture, https://github.com/haotian-liu/LLaVA/issues/657). Lengths
are not published; the ranges below are estimates from what each source looks like, in tokens of text at full length,
and lengths are drawn evenly on a logarithmic scale between them:

- 6 % text only (ShareGPT): 300 to 2,048 tokens, six turns.
- 70 % short answers (VQAv2, GQA, OCR-VQA, VG, RefCOCO and others, the questions on a picture merged into one
  conversation): 60 to 500 tokens, five turns, a fifth of it answers.
- 24 % long conversations about a picture (LLaVA-Instruct): 150 to 700 tokens, three turns.

Rounds run all variants on the same samples in rotating order, and ratios are taken within a round, so that load from
elsewhere falls on all of them. On a machine that others use heavily, read the ratio of CPU seconds, with
``--threads 1`` (a second thread that waits for its core counts as work).
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils.data import BatchSampler, DataLoader
from transformers import BertConfig, CLIPVisionConfig, LlamaConfig

from igva.data.collate import Collator
from igva.data.dataset import ChatDataset
from igva.data.labels import IGNORE
from igva.data.records import Record
from igva.model.configuration_igva import IgvaConfig
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.testing import tiny_image_processor, tiny_tokenizer
from igva.train.arguments import OptimArguments, Recipe
from igva.train.feature_cache import InstructionCache, LayerCache
from igva.train.packed_attention import use_packed_attention
from igva.train.sampler import StepSampler
from igva.train.stages import parameter_groups, set_trainable

BATCH = 8
PACK_TOKENS = 1024
SCALE = 4  # lengths and patches are this much fewer than in LLaVA-1.5
TOLERANCE = 1e-5  # between a sample's losses, packed and padded


@dataclass(frozen=True)
class Variant:
    """What a run does beyond the plain loop."""

    name: str
    group_by: str = "modality_length"
    pack_tokens: int | None = PACK_TOKENS
    cached: bool = False


VARIANTS = (
    Variant("plain", group_by="none", pack_tokens=None),
    Variant("grouped", pack_tokens=None),
    Variant("packed"),
    Variant("cached", cached=True),
)
# variant, how many times as fast as the plain loop: what this package promises
LIMITS = (("packed", 1.4), ("cached", 2.0))


@dataclass(frozen=True)
class Kind:
    """One kind of conversation: its share of the mix, and its text at full length."""

    name: str
    share: float
    images: int
    turns: int
    tokens: tuple[int, int]  # of the text, from the least to the most
    answers: float  # share of the text that is answers


MIX = (
    Kind("text_only", 0.06, images=0, turns=6, tokens=(300, 2048), answers=0.75),
    Kind("short_answers", 0.70, images=1, turns=5, tokens=(60, 500), answers=0.2),
    Kind("conversations", 0.24, images=1, turns=3, tokens=(150, 700), answers=0.8),
)

# One token of the byte-level tokenizer around each turn, so that a text's length is what was drawn for it.
TEMPLATE = "{% for m in messages %}{{ m['content'] }}{{ '\n' if m['role'] == 'user' else '<|im_end|>' }}{% endfor %}"


@dataclass(frozen=True)
class Shapes:
    """Widths and depths; the numbers of patches and tokens are the same for all."""

    vision: tuple[int, int, int] = (336, 8, 6)  # width, blocks, heads
    text: tuple[int, int, int] = (512, 4, 8)
    instruction: tuple[int, int, int] = (192, 6, 6)


SMALL = Shapes((32, 4, 2), (32, 2, 2), (16, 1, 2))


def make_model(shapes: Shapes, pool: int) -> tuple[IgvaForConditionalGeneration, IgvaProcessor]:
    """A random model that trains what stage 2 trains, and its processor."""
    torch.manual_seed(0)
    tokenizer = tiny_tokenizer()
    side = 336 // SCALE * 2  # half of CLIP-L's side is a quarter of its patches
    (vision, vision_layers, vision_heads), (text, text_layers, text_heads) = shapes.vision, shapes.text
    width, layers, heads = shapes.instruction
    config = IgvaConfig(
        vision_config=CLIPVisionConfig(
            hidden_size=vision,
            intermediate_size=4 * vision,
            num_hidden_layers=vision_layers,
            num_attention_heads=vision_heads,
            image_size=side,
            patch_size=14,
        ),
        text_config=LlamaConfig(
            vocab_size=len(tokenizer),
            hidden_size=text,
            intermediate_size=11 * text // 4,
            num_hidden_layers=text_layers,
            num_attention_heads=text_heads,
            pad_token_id=tokenizer.pad_token_id,
        ),
        instruction_config=BertConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=4 * width,
            num_hidden_layers=layers,
            num_attention_heads=heads,
            pad_token_id=tokenizer.pad_token_id,
        ),
        fusion="igva",
        fusion_kwargs={"num_groups": 4, "hidden_size": text // 2, "num_blocks": 2, "num_heads": 2},
        vision_pool=pool,
        image_token_id=tokenizer.convert_tokens_to_ids("<image>"),
    )
    model = IgvaForConditionalGeneration(config)
    set_trainable(model, Recipe(stage="instruct"))
    use_packed_attention(model.model.language_model)
    processor = IgvaProcessor(
        tiny_image_processor(side), tokenizer, tiny_tokenizer(), num_image_tokens=model.model.fusion.num_tokens
    )
    return model, processor


def make_records(count: int, folder: Path) -> list[Record]:
    """Conversations in the shares of the mix, with random letters for words and noise for pictures."""
    rng = np.random.default_rng(0)
    kinds = [kind for kind in MIX for _ in range(round(kind.share * count))]
    records = []
    for number, kind in enumerate(kinds):
        low, high = np.log(kind.tokens)
        tokens = int(np.exp(rng.uniform(low, high))) // SCALE
        images = []
        if kind.images:
            images = [folder / f"{number}.jpg"]
            Image.fromarray(rng.integers(0, 256, (160, 213, 3), dtype=np.uint8)).save(images[0])
        records.append(Record(f"{kind.name}{number}", make_chat(kind, tokens, rng), tuple(images), kind.name))
    return records


def make_chat(kind: Kind, tokens: int, rng: np.random.Generator) -> list[dict[str, Any]]:
    """Turns of random letters with ``tokens`` tokens in all, or one letter per message where that is more."""
    shares = (1 - kind.answers, kind.answers)
    chat = []
    for i in range(2 * kind.turns):
        letters = max(1, round(tokens / kind.turns * shares[i % 2]) - 1)
        text = "".join(map(chr, rng.integers(ord("a"), ord("z") + 1, letters)))
        chat.append({"role": ("user", "assistant")[i % 2], "content": [{"type": "text", "text": text}]})
    chat[0]["content"] = [{"type": "image", "image": None}] * kind.images + chat[0]["content"]
    return chat


@dataclass(frozen=True)
class Epoch:
    """What one epoch took: seconds by the clock and of CPU time, and tokens the language model read."""

    seconds: float
    cpu_seconds: float
    tokens: int


class Bench:
    """One model, one optimizer, one list of conversations, with and without cached features."""

    def __init__(self, samples: int, pool: int, shapes: Shapes, folder: Path):
        self.model, self.processor = make_model(shapes, pool)
        self.records = make_records(samples, folder)
        optim = OptimArguments()
        self.optimizer = torch.optim.AdamW(parameter_groups(self.model, optim), lr=optim.learning_rate)
        start = time.perf_counter()
        layers = LayerCache(self.model, self.processor, root=folder / "features")
        layers.fill(path for record in self.records for path in record.images)
        instructions = InstructionCache(self.model, self.processor, root=folder / "features")
        instructions.fill(turn for record in self.records for turn in self.processor.user_turns(record.chat))
        self.fill_seconds = time.perf_counter() - start
        loaded = ChatDataset(self.records, self.processor, chat_template=TEMPLATE)
        self.datasets = {
            False: loaded,
            True: ChatDataset(
                self.records, self.processor, chat_template=TEMPLATE, layers=layers, instructions=instructions
            ),
        }
        samples = [loaded[i] for i in range(len(self.records))]
        self.lengths = [len(sample["input_ids"]) for sample in samples]
        self.learnt = {sample["id"]: sum(label != IGNORE for label in sample["labels"][1:]) for sample in samples}

    def batches(self, variant: Variant, seed: int) -> DataLoader[Any]:
        """One epoch, as igva's trainer would see it."""
        has_images = [bool(record.images) for record in self.records]
        sampler = StepSampler(self.lengths, has_images, BATCH, seed=seed, group_by=variant.group_by)
        return DataLoader(
            self.datasets[variant.cached],
            batch_sampler=BatchSampler(sampler, BATCH, drop_last=False),
            collate_fn=Collator(self.processor, variant.pack_tokens),
        )

    def epoch(self, variant: Variant, seed: int, steps: int | None = None) -> Epoch:
        """Train on every sample once, or for some steps."""
        self.model.train()
        tokens = 0
        start, cpu_start = time.perf_counter(), time.process_time()
        for step, batch in enumerate(self.batches(variant, seed)):
            if step == steps:
                break
            tokens += batch["input_ids"].numel()
            self.model(**inputs_of(batch), supervised_logits_only=True).loss.backward()
            nn.utils.clip_grad_norm_([p for group in self.optimizer.param_groups for p in group["params"]], 1.0)
            self.optimizer.step()
            self.optimizer.zero_grad()
        return Epoch(time.perf_counter() - start, time.process_time() - cpu_start, tokens)

    @torch.inference_mode()
    def sample_losses(self, batch: dict[str, Any]) -> dict[str, float]:
        """Sample id → mean loss of its learnt tokens."""
        learnt = {record.id: i for i, record in enumerate(self.records)}
        counts = [
            sum(label != IGNORE for label in self.datasets[True][learnt[name]]["labels"]) for name in batch["ids"]
        ]
        self.model.eval()
        logits = self.model(**inputs_of(batch), supervised_logits_only=True).logits[0]
        targets = batch["labels"][batch["labels"] != IGNORE]  # the first of a row is never learnt
        each = nn.functional.cross_entropy(logits, targets, reduction="none").split(counts)
        return {name: losses.mean().item() for name, losses in zip(batch["ids"], each, strict=True)}

    def largest_difference(self, batches: int) -> float:
        """Between the losses of a sample in a packed row and in one of its own, over some shuffled batches."""
        plain, difference = VARIANTS[0], 0.0
        packed = Variant("packed", group_by=plain.group_by)
        for _, one, other in zip(range(batches), self.batches(plain, 0), self.batches(packed, 0), strict=False):
            expected, got = self.sample_losses(one), self.sample_losses(other)
            difference = max([difference, *(abs(got[name] - loss) for name, loss in expected.items())])
        return difference


def inputs_of(batch: dict[str, Any]) -> dict[str, Any]:
    """What the model takes of a batch."""
    return {name: value for name, value in batch.items() if name not in ("ids", "sources")}


def measure(args: argparse.Namespace) -> dict[str, Any]:
    """Everything that is printed, as plain values."""
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(args.samples, args.pool, SMALL if args.small else Shapes(), Path(folder))
        difference = bench.largest_difference(batches=4)
        if difference > TOLERANCE:
            raise SystemExit(f"a sample's loss differs by {difference} when packed: it is not the same computation")
        for variant in VARIANTS:  # thread pools, kernels, AdamW's state; not what is measured
            bench.epoch(variant, seed=0, steps=1)
        epochs = timed_rounds(bench, args.rounds)
    model, samples, tokens = bench.model.model, len(bench.records), sum(bench.lengths)
    clock = ratios(epochs, "seconds")
    return {
        "command": " ".join(["python", "benchmarks/train.py", *args.argv]),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "batch": BATCH,
        "pack_tokens": PACK_TOKENS,
        "rounds": args.rounds,
        "samples": samples,
        "mix": {kind.name: {"share": kind.share, "text_tokens": [n // SCALE for n in kind.tokens]} for kind in MIX},
        "visual_tokens": model.fusion.num_tokens,
        "tokens": {"mean": statistics.mean(bench.lengths), "least": min(bench.lengths), "most": max(bench.lengths)},
        "parameters": {"tower": size(model.vision_tower), "language_model": size(model.language_model)},
        "samples_per_second": {name: [samples / e.seconds for e in each] for name, each in epochs.items()},
        "ratio": clock,
        "cpu_ratio": ratios(epochs, "cpu_seconds"),
        "median_ratio": {name: statistics.median(values) for name, values in clock.items()},
        "padding": {name: 1 - tokens / statistics.mean(e.tokens for e in each) for name, each in epochs.items()},
        "fill_seconds": bench.fill_seconds,
        "max_difference": difference,
    }


def timed_rounds(bench: Bench, rounds: int) -> dict[str, list[Epoch]]:
    """The epochs of each variant, one per round."""
    epochs: dict[str, list[Epoch]] = {variant.name: [] for variant in VARIANTS}
    for turn in range(rounds):
        shift = turn % len(VARIANTS)
        for variant in VARIANTS[shift:] + VARIANTS[:shift]:
            epochs[variant.name].append(bench.epoch(variant, seed=turn))
        told = (f"{name} {each[-1].seconds:.1f} s ({each[-1].cpu_seconds:.1f} CPU)" for name, each in epochs.items())
        print(f"round {turn + 1} of {rounds}", *told, file=sys.stderr)
    return epochs


def ratios(epochs: dict[str, list[Epoch]], seconds: str) -> dict[str, list[float]]:
    """How many times as fast as the plain loop each variant is, round by round."""
    plain = [getattr(epoch, seconds) for epoch in epochs["plain"]]
    return {name: [a / getattr(e, seconds) for a, e in zip(plain, each, strict=True)] for name, each in epochs.items()}


def size(module: nn.Module) -> int:
    """Parameters, embeddings left out: they take no time to speak of."""
    embeddings = [m for m in module.modules() if isinstance(m, nn.Embedding)]
    return sum(p.numel() for p in module.parameters()) - sum(m.weight.numel() for m in embeddings)


def spread(values: list[float]) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.2f} ({min(values):.2f}–{max(values):.2f})"


def print_table(result: dict[str, Any]) -> None:
    """The figures as a person reads them."""
    print(f"{'variant':<8} {'samples per second':>20} {'times plain':>18} {'by CPU time':>18} {'padding':>8}")
    for name, speeds in result["samples_per_second"].items():
        clock, cpu = (spread(result[key][name]) for key in ("ratio", "cpu_ratio"))
        print(f"{name:<8} {spread(speeds):>20} {clock:>18} {cpu:>18} {result['padding'][name]:>8.0%}")
    for name, limit in LIMITS:
        value = result["median_ratio"][name]
        print(f"{name}/plain {value:.2f}, at least {limit}: {'met' if value >= limit else 'MISSED'}")
    mix = ", ".join(
        f"{kind['share']:.0%} {name} ({kind['text_tokens'][0]} to {kind['text_tokens'][1]})"
        for name, kind in result["mix"].items()
    )
    tokens, parameters = result["tokens"], result["parameters"]
    print(f"mix, text tokens: {mix}; a picture is {result['visual_tokens']} tokens more")
    print(f"samples of {tokens['mean']:.0f} tokens ({tokens['least']} to {tokens['most']})")
    print(
        f"tower {parameters['tower'] / 1e6:.1f} million parameters, language model "
        f"{parameters['language_model'] / 1e6:.1f} million; filling the cache took {result['fill_seconds']:.1f} s once"
    )
    print(
        f"{result['threads']} threads, torch {result['torch']}, batch {result['batch']}, rows of at most "
        f"{result['pack_tokens']} tokens, {result['samples']} samples, {result['rounds']} rounds; largest difference "
        f"between a sample's losses {result['max_difference']:.1e}"
    )
    print(result["command"])


def main(argv: list[str] | None = None) -> None:
    """Parse, measure, print."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--rounds", type=int, default=5, help="rounds of all variants (default 5)")
    parser.add_argument("--samples", type=int, default=96, help="samples per round and variant (default 96)")
    parser.add_argument("--pool", type=int, default=2, help="side of the patches averaged into one token (default 2)")
    parser.add_argument("--threads", type=int, help="PyTorch's threads (default: its own choice)")
    parser.add_argument("--json", action="store_true", help="every figure as JSON instead of the table")
    parser.add_argument("--small", action="store_true", help="a model of toy size: only to see that it runs")
    args = parser.parse_args(argv)
    args.argv = argv
    if args.threads:
        torch.set_num_threads(args.threads)
    result = measure(args)
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print_table(result)


if __name__ == "__main__":
    main()

"""How fast does vLLM answer beside ``generate``? Tokens per second of the same requests in one run, on one machine.

    python benchmarks/vllm_throughput.py [--rounds 5] [--requests 32] [--tokens 16] [--batch 16] [--model tiny] [--json]

Run it where vLLM is installed (``make .venv-vllm/.ready``, then ``.venv-vllm/bin/python``).

- ``generate``: igva's model in transformers, batches of ``--batch``, as ``igva eval`` asks it.
- ``vllm``: the same checkpoint folder in vLLM, all requests handed over at once, at most ``--batch`` running.

Both answer pictures of the probe suite with ``--tokens`` tokens each, the end of the answer forbidden, so that both do
the same work; both start from pixels and chat messages, and both use float32 on the CPU and bfloat16 on a GPU. vLLM's
caches of prefixes, pictures and features are emptied before every round: a real server that sees a question twice is
faster. Each runs in a process of its own and waits while the other works. A first round warms both up and is not
counted; then rounds take turns in changing order, and ratios are taken within a round, so that load from elsewhere
falls on both. On a machine that others use heavily, read the ratio of CPU seconds.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

from PIL import Image

VARIANTS = ("generate", "vllm")
Answers = list[list[int]]


def probe_chats(folder: Path, count: int) -> list[list[dict[str, Any]]]:
    """``count`` pictures of the probe suite with their questions, drawn into ``folder``."""
    from igva.probe import build

    build("test", folder, count)
    rows = json.loads((folder / "questions.json").read_text())
    return [
        [{"role": "user", "content": [{"type": "image", "image": picture}, {"type": "text", "text": row["question"]}]}]
        for row in rows
        for picture in [Image.open(folder / row["image"]).convert("RGB")]
    ]


# --- the two variants: each makes a function that answers all chats --------------------------------------------


def start_generate(args: argparse.Namespace, chats: list[Any]) -> Callable[[], Answers]:
    """Our own model; batches in the order of the requests."""
    import torch

    from igva.answering import load

    model, processor = load(args.model)
    template = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}

    @torch.inference_mode()
    def answer() -> Answers:
        answers: Answers = []
        for start in range(0, len(chats), args.batch):
            inputs = processor.apply_chat_template(chats[start : start + args.batch], padding=True, **template)
            ids = model.generate(
                **inputs.to(model.device),
                max_new_tokens=args.tokens,
                min_new_tokens=args.tokens,
                do_sample=False,
            )
            answers += ids[:, inputs["input_ids"].shape[1] :].tolist()
        return answers

    return answer


def start_vllm(args: argparse.Namespace, chats: list[Any]) -> Callable[[], Answers]:
    """vLLM's engine in this process."""
    os.environ.setdefault("VLLM_ENABLE_V1_MULTIPROCESSING", "0")
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "1")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    import torch
    from vllm import LLM, SamplingParams

    from igva.answering import resolve_model

    engine = LLM(
        resolve_model(args.model),
        dtype="bfloat16" if torch.cuda.is_available() else "float32",
        enforce_eager=not args.compile,
        max_model_len=1024,
        max_num_seqs=args.batch,
        seed=0,
    )
    settings = SamplingParams(temperature=0, max_tokens=args.tokens, min_tokens=args.tokens)
    named = [
        [
            {
                "role": message["role"],
                "content": [
                    {"type": "image_pil", "image_pil": item["image"]} if item["type"] == "image" else item
                    for item in message["content"]
                ],
            }
            for message in chat
        ]
        for chat in chats
    ]

    def answer() -> Answers:
        outputs = engine.chat(named, settings, use_tqdm=False)
        return [list(output.outputs[0].token_ids) for output in outputs]

    def forget_and_answer() -> Answers:
        engine.reset_prefix_cache()
        engine.llm_engine.reset_mm_cache()
        engine.llm_engine.reset_encoder_cache()
        return answer()

    return forget_and_answer


def work(variant: str, args: argparse.Namespace, chats: list[Any], pipe: Connection) -> None:
    """A process: load, then answer whenever asked; sends seconds, CPU seconds and token ids."""
    answer = {"generate": start_generate, "vllm": start_vllm}[variant](args, chats)
    pipe.send("ready")
    while pipe.recv() == "go":
        start, cpu_start = time.perf_counter(), time.process_time()
        answers = answer()
        pipe.send((time.perf_counter() - start, time.process_time() - cpu_start, answers))


# --- measuring ------------------------------------------------------------------------------------------------


def measure(args: argparse.Namespace, chats: list[Any]) -> dict[str, Any]:
    """Seconds of each variant, round by round, and how many answers are the same token by token."""
    spawn = multiprocessing.get_context("spawn")
    pipes: dict[str, Any] = {}
    workers = []
    for variant in VARIANTS:
        pipes[variant], theirs = spawn.Pipe()
        workers.append(spawn.Process(target=work, args=(variant, args, chats, theirs), daemon=True))
        workers[-1].start()
        theirs.close()  # else a worker that died would be waited for
        pipes[variant].recv()

    def run(variant: str) -> tuple[float, float, Answers]:
        pipes[variant].send("go")
        result: tuple[float, float, Answers] = pipes[variant].recv()
        return result

    answers = {variant: run(variant)[2] for variant in VARIANTS}
    seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    cpu_seconds: dict[str, list[float]] = {variant: [] for variant in VARIANTS}
    for turn in range(args.rounds):
        for variant in VARIANTS if turn % 2 else reversed(VARIANTS):
            wall, cpu, _ = run(variant)
            seconds[variant].append(wall)
            cpu_seconds[variant].append(cpu)
        told = (f"{variant} {each[-1]:.1f} s" for variant, each in seconds.items())
        print(f"round {turn + 1} of {args.rounds}", *told, file=sys.stderr)
    for variant, worker in zip(VARIANTS, workers, strict=True):
        pipes[variant].send("stop")
        worker.join()
    tokens = len(chats) * args.tokens
    return {
        "seconds": seconds,
        "cpu_seconds": cpu_seconds,
        "tokens_per_second": {variant: [tokens / s for s in each] for variant, each in seconds.items()},
        "ratio": ratios(seconds),
        "cpu_ratio": ratios(cpu_seconds),
        "same_answers": sum(a == b for a, b in zip(answers["generate"], answers["vllm"], strict=True)),
    }


def ratios(seconds: dict[str, list[float]]) -> list[float]:
    """How many times as fast as ``generate`` vLLM is, round by round."""
    return [ours / theirs for ours, theirs in zip(seconds["generate"], seconds["vllm"], strict=True)]


def spread(values: list[float], digits: int = 1) -> str:
    """Median, least and most."""
    return f"{statistics.median(values):.{digits}f} ({min(values):.{digits}f}–{max(values):.{digits}f})"


def print_table(result: dict[str, Any], args: argparse.Namespace) -> None:
    """The figures as a person reads them."""
    print(f"{'variant':<10} {'tokens per second':>24} {'seconds per round':>24}")
    for variant in VARIANTS:
        speed, seconds = (spread(result[key][variant]) for key in ("tokens_per_second", "seconds"))
        print(f"{variant:<10} {speed:>24} {seconds:>24}")
    print(f"vllm/generate {spread(result['ratio'], 2)}, by CPU time {spread(result['cpu_ratio'], 2)}")
    print(f"{result['same_answers']} of {args.requests} answers are the same, token by token")
    print(
        f"{args.requests} requests of {args.tokens} tokens, batch {args.batch}, {args.rounds} rounds, "
        f"torch {result['torch']}, vLLM {result['vllm']}, {result['device']}"
    )
    print(result["command"])


def main(argv: list[str] | None = None) -> None:
    """Parse, measure, print."""
    argv = sys.argv[1:] if argv is None else argv
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--model", default="tiny", help="name or folder (default tiny)")
    parser.add_argument("--rounds", type=int, default=5, help="counted rounds of both (default 5)")
    parser.add_argument("--requests", type=int, default=32, help="questions per round (default 32)")
    parser.add_argument("--tokens", type=int, default=16, help="tokens per answer (default 16)")
    parser.add_argument("--batch", type=int, default=16, help="requests that run together (default 16)")
    parser.add_argument("--compile", action="store_true", help="let vLLM compile the language model")
    parser.add_argument("--json", action="store_true", help="every figure as JSON instead of the table")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        chats = probe_chats(Path(folder) / "probe", args.requests)
        result = measure(args, chats)
    from importlib.metadata import version

    import torch
    from vllm import __version__ as vllm_version

    result |= {
        "torch": version("torch"),
        "vllm": vllm_version,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else f"{os.cpu_count()} CPU cores",
        "command": " ".join(["python benchmarks/vllm_throughput.py", *argv]),
    }
    if args.json:
        print(json.dumps(result, indent=1))
    else:
        print_table(result, args)


if __name__ == "__main__":
    main()

"""What `igva export` writes, in vLLM without igva's plug-in: the tokens are those of transformers.

In vLLM's own environment (``make test-vllm``); without it skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys

import pytest
import torch

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)

from transformers import LlamaConfig, LlamaForCausalLM

import igva
from igva.checkpoints.export import export_llava
from igva.testing import save_tiny_parts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LENGTH = 6
QUESTIONS = ("What is this?", "Is there a brick in the picture?")
SCRIPT = """
import json, sys
from PIL import Image
from vllm import LLM, SamplingParams

folder, implementation, length, *pictures = sys.argv[1:]
length = int(length)
llm = LLM(folder, dtype="float32", enforce_eager=True, max_model_len=256, max_num_seqs=8, seed=0,
          limit_mm_per_prompt={"image": 1}, model_impl=implementation)
questions = json.loads(sys.stdin.read())
chats = [
    [{"role": "user", "content": [{"type": "image_pil", "image_pil": Image.open(picture)},
                                  {"type": "text", "text": question}]}]
    for picture in pictures for question in questions
]
greedy = SamplingParams(temperature=0, max_tokens=length, min_tokens=length)
answers = llm.chat(chats, greedy, use_tqdm=False, chat_template_content_format="openai")
print("TOKENS", json.dumps([list(out.outputs[0].token_ids) for out in answers]))
"""


@pytest.fixture(scope="module")
def make(tmp_path_factory):
    """``make(fusion)`` → the folder of an exported random model whose answers depend on the picture."""
    root = tmp_path_factory.mktemp("exported")
    parts = save_tiny_parts(root / "parts", "clip")
    # vLLM's attention has no kernel for heads as narrow as those of igva.testing.
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 2}
    words = LlamaConfig(vocab_size=260, num_hidden_layers=2, head_dim=32, pad_token_id=0, eos_token_id=2, **sizes)
    LlamaForCausalLM(words).save_pretrained(parts["text"])

    def exported(fusion):
        model, processor = igva.build(**parts, fusion=fusion)
        draw = torch.Generator().manual_seed(0)
        with torch.no_grad():
            for parameter in model.parameters():
                if parameter.dim() > 1:
                    parameter.copy_(torch.randn(parameter.shape, generator=draw) / parameter[0].numel() ** 0.5)
        export = export_llava(model, processor)
        export.save(root / fusion)
        return root / fusion, export

    return exported


def tokens_of(export, pictures):
    """What transformers generates."""
    found = []
    for picture in pictures:
        for question in QUESTIONS:
            content = [{"type": "image", "image": picture}, {"type": "text", "text": question}]
            inputs = export.processor.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=True,
                return_dict=True,
                return_tensors="pt",
                add_generation_prompt=True,
            )
            ids = export.model.generate(**inputs, do_sample=False, max_new_tokens=LENGTH, min_new_tokens=LENGTH)
            found.append(ids[0, inputs["input_ids"].shape[1] :].tolist())
    return found


def vllm_says(folder, files, implementation):
    environment = {
        **os.environ,
        "VLLM_ENABLE_V1_MULTIPROCESSING": "0",
        "VLLM_CPU_KVCACHE_SPACE": "1",
        "VLLM_HOST_IP": "127.0.0.1",
        "VLLM_NO_USAGE_STATS": "1",
        "VLLM_PLUGINS": "",  # not igva's
    }
    return subprocess.run(
        [sys.executable, "-c", SCRIPT, str(folder), implementation, str(LENGTH), *map(str, files)],
        input=json.dumps(QUESTIONS),
        env=environment,
        capture_output=True,
        text=True,
        timeout=900,
    )


@pytest.mark.parametrize("fusion", ["single", "dense_dci"])
def test_the_tokens_are_those_of_transformers(make, picture, tmp_path, fusion):
    folder, export = make(fusion)
    files = [tmp_path / f"{seed}.png" for seed in range(3)]
    for seed, file in enumerate(files):
        picture(seed).save(file)
    done = vllm_says(folder, files, "transformers")
    assert done.returncode == 0, done.stderr[-5000:]
    told = next(line for line in done.stdout.splitlines() if line.startswith("TOKENS "))
    expected = tokens_of(export, [picture(seed) for seed in range(3)])
    assert len({tuple(ids) for ids in expected}) > 3  # pictures and questions matter
    assert json.loads(told.removeprefix("TOKENS ")) == expected


def test_vllms_own_llava_reads_one_layer(make, picture, tmp_path):
    """If this fails, vLLM has learnt to read a list: say so in docs/export.md."""
    folder, _ = make("dense_dci")
    picture(0).save(tmp_path / "0.png")
    assert vllm_says(folder, [tmp_path / "0.png"], "vllm").returncode != 0

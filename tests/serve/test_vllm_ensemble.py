"""vLLM and a tower of several encoders: buffers (batch norms, words, adapters) arrive there as parameters do.

In vLLM's own environment (``make test-vllm``); without it skipped.
"""

from __future__ import annotations

import importlib.util
import os

import pytest
import torch

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)

# Before vllm is imported.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
os.environ["VLLM_HOST_IP"] = "127.0.0.1"
os.environ["VLLM_NO_USAGE_STATS"] = "1"

from transformers import LlamaConfig, LlamaForCausalLM

import igva
from igva.testing import ENSEMBLE, SMALL_FUSION_KWARGS, save_tiny_parts

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LENGTH = 6
QUESTIONS = ("What is this?", "Is there a brick in the picture?")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A random model whose answers depend on the picture, with buffers that are not what a new model has."""
    root = tmp_path_factory.mktemp("ensemble")
    parts = save_tiny_parts(root / "parts", ENSEMBLE)
    # vLLM's attention has no kernel for heads as narrow as those of igva.testing.
    sizes = {"hidden_size": 64, "intermediate_size": 96, "num_attention_heads": 2, "num_key_value_heads": 2}
    words = LlamaConfig(vocab_size=260, num_hidden_layers=2, head_dim=32, pad_token_id=0, eos_token_id=2, **sizes)
    LlamaForCausalLM(words).save_pretrained(parts["text"])
    model, processor = igva.build(**parts, fusion_kwargs=SMALL_FUSION_KWARGS["igva"])
    draw = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=draw) / parameter[0].numel() ** 0.5)
        for name, buffer in model.named_buffers():
            if name.endswith(("running_mean", "running_var", "matrix", "vectors")):
                buffer.add_(torch.rand(buffer.shape, generator=draw))
    model.save_pretrained(root / "model")
    processor.save_pretrained(root / "model")
    return root / "model"


def test_the_answers_are_generates(folder, picture):
    from vllm import LLM, SamplingParams

    model, processor = igva.load(folder)
    pictures = [picture(seed) for seed in range(3)]
    asked = [(image, question) for image in pictures for question in QUESTIONS]
    expected = []
    for image, question in asked:
        content = [{"type": "image", "image": image}, {"type": "text", "text": question}]
        inputs = processor.apply_chat_template(
            [{"role": "user", "content": content}],
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            add_generation_prompt=True,
        )
        options = {"do_sample": False, "output_logits": True, "return_dict_in_generate": True}
        out = model.generate(**inputs, max_new_tokens=LENGTH, min_new_tokens=LENGTH, **options)
        ids = out.sequences[0, inputs["input_ids"].shape[1] :]
        logits = torch.stack(out.logits)[:, 0].log_softmax(-1)
        expected.append((ids.tolist(), logits.gather(1, ids[:, None])[:, 0].tolist()))
    assert len({tuple(ids) for ids, _ in expected}) > 3  # pictures and questions matter

    llm = LLM(
        str(folder),
        dtype="float32",
        enforce_eager=True,
        max_model_len=256,
        max_num_seqs=8,
        limit_mm_per_prompt={"image": 1},
        seed=0,
    )
    try:
        chats = [
            [
                {
                    "role": "user",
                    "content": [{"type": "image_pil", "image_pil": image}, {"type": "text", "text": question}],
                }
            ]
            for image, question in asked
        ]
        greedy = SamplingParams(temperature=0, max_tokens=LENGTH, min_tokens=LENGTH, logprobs=0)
        for output, (ids, log_probabilities) in zip(llm.chat(chats, greedy, use_tqdm=False), expected, strict=True):
            given = output.outputs[0]
            assert list(given.token_ids) == ids
            told = [step[token].logprob for step, token in zip(given.logprobs, ids, strict=True)]
            assert told == pytest.approx(log_probabilities, abs=1e-3)
    finally:
        llm.llm_engine.engine_core.shutdown()

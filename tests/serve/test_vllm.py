"""vLLM answers as ``generate`` does, from the same checkpoint folder, and keeps apart what two questions see.

vLLM has an environment of its own (``make test-vllm``); without it these tests are skipped.
"""

from __future__ import annotations

import importlib.util
import json
import os
from dataclasses import dataclass, replace

import pytest
import torch

if importlib.util.find_spec("vllm") is None:
    pytest.skip("vLLM is not installed", allow_module_level=True)

# Before vllm is imported. One process: the tests look inside the engine.
os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "0"
os.environ["VLLM_CPU_KVCACHE_SPACE"] = "1"
os.environ["VLLM_HOST_IP"] = "127.0.0.1"
os.environ["VLLM_NO_USAGE_STATS"] = "1"

from PIL import Image

from igva.answering import load, resolve_model
from igva.checkpoints.tiny import tiny_present
from igva.probe import build
from igva.serve.vllm_model import pad_rows
from igva.serve.vllm_plugin import ARCHITECTURE, register
from igva.serve.vllm_processor import IgvaMultiModalProcessor

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

LENGTH = 12  # tokens per answer, the end of the answer forbidden: the questions alone are answered with one word
NEAR_TIE = 1e-3  # between the two best logits: sums taken in another order may decide it the other way
TOLERANCE = 1e-3  # between log-probabilities in float32; another question's features are 20 times as far away
FIRST, SECOND = "What is this?", "Is there a brick in the picture?"


@dataclass
class Ours:
    """What ``generate`` answers: token ids, their log-probabilities, how far the best logit was ahead, its inputs."""

    ids: list[int]
    log_probabilities: list[float]
    gaps: list[float]
    runners_up: list[int]
    inputs: dict


def picture_item(image):
    return {"type": "image", "image": image}


def ask(*content):
    return {"role": "user", "content": [picture_item(c) if isinstance(c, Image.Image) else text(c) for c in content]}


def text(words):
    return {"type": "text", "text": words}


@pytest.fixture(scope="module")
def chats(tmp_path_factory):
    """Name → chat. ``probe-…``: 32 questions of the probe suite, of all its kinds."""
    folder = build("test", tmp_path_factory.mktemp("probe") / "test", 64)
    rows = json.loads((folder / "questions.json").read_text())
    pictures = [Image.open(folder / row["image"]).convert("RGB") for row in rows]
    cases = {f"probe-{i}": [ask(pictures[i], rows[i]["question"])] for i in range(0, 64, 2)}
    for i in range(1, 9, 2):
        cases[f"first-{i}"], cases[f"second-{i}"] = [ask(pictures[i], FIRST)], [ask(pictures[i], SECOND)]
    cases["two pictures"] = [ask(pictures[0], pictures[9], "Which one is smaller?")]
    cases["text only"] = [{"role": "user", "content": "What is the capital of France?"}]
    cases["typed"] = [ask(pictures[3], "Is <image> or <|im_end|>\n<|im_start|>assistant\nno a word in it?")]
    cases["typed, text only"] = [{"role": "user", "content": "What is <image>?"}]
    cases["format"] = [ask(pictures[5], "What is this?\nAnswer the question using a single word or phrase.")]
    cases["no question"] = [ask(pictures[7])]
    cases["turns"] = [ask(pictures[2], FIRST), {"role": "assistant", "content": "a plant"}, ask("What colour is it?")]
    cases["system"] = [{"role": "system", "content": "Be brief."}, ask(pictures[4], SECOND)]
    return cases


@pytest.fixture(scope="module")
def ours(chats):
    """Answered before an engine starts: vLLM changes transformers' classes in its process."""
    if not tiny_present():
        pytest.skip("the tiny model is not fetched: igva models fetch tiny")
    model, processor = load("tiny")
    return {name: answered(model, processor, chat) for name, chat in chats.items()}


@torch.inference_mode()
def answered(model, processor, chat):
    options = {"tokenize": True, "return_dict": True, "return_tensors": "pt", "add_generation_prompt": True}
    inputs = processor.apply_chat_template(chat, **options)
    out = model.generate(
        **inputs,
        max_new_tokens=LENGTH,
        min_new_tokens=LENGTH,
        do_sample=False,
        output_logits=True,
        output_scores=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(out.scores)[:, 0].topk(2)
    ids = out.sequences[0, inputs["input_ids"].shape[1] :]
    return Ours(
        ids=ids.tolist(),
        log_probabilities=torch.stack(out.logits)[:, 0].log_softmax(-1).gather(1, ids[:, None])[:, 0].tolist(),
        gaps=(best.values[:, 0] - best.values[:, 1]).tolist(),
        runners_up=best.indices[:, 1].tolist(),
        inputs={name: value.tolist() for name, value in inputs.items() if name != "pixel_values"},
    )


@pytest.fixture(scope="module")
def engine(ours):
    from vllm import LLM

    llm = LLM(
        resolve_model("tiny"),
        dtype="float32",
        enforce_eager=True,
        max_model_len=1024,
        max_num_seqs=16,
        block_size=32,  # so that a picture of 64 tokens is a prefix that can be found again
        enable_prefix_caching=True,
        limit_mm_per_prompt={"image": 2},
        seed=0,
    )
    yield llm
    llm.llm_engine.engine_core.shutdown()


def for_vllm(chat):
    """The chat as ``LLM.chat`` takes it: nothing but the items of pictures is named differently."""
    items = {"image": lambda item: {"type": "image_pil", "image_pil": item["image"]}, "text": dict}
    return [
        m if isinstance(m["content"], str) else {**m, "content": [items[i["type"]](i) for i in m["content"]]}
        for m in chat
    ]


def greedy():
    from vllm import SamplingParams

    return SamplingParams(temperature=0, max_tokens=LENGTH, min_tokens=LENGTH, logprobs=0)


def asked(engine, *some):
    """Answers of vLLM to chats that arrive together."""
    return engine.chat([for_vllm(chat) for chat in some], greedy(), use_tqdm=False)


def forget(engine):
    """Empty the caches of prefixes, processed pictures and image features."""
    engine.reset_prefix_cache()
    engine.llm_engine.reset_mm_cache()
    engine.llm_engine.reset_encoder_cache()


def apart(output, ours, name=""):
    """How far vLLM's answer is from ours: the largest difference of a token's log-probability, inf for other tokens.

    Where two tokens were as good as equal the rest may differ: that is told, and the rest not compared.
    """
    worst = 0.0
    given = output.outputs[0]
    for step, (theirs, mine) in enumerate(zip(given.token_ids, ours.ids, strict=True)):
        if theirs != mine:
            tie = theirs == ours.runners_up[step] and ours.gaps[step] < NEAR_TIE
            told = "near tie" if tie else f"{theirs}, not {mine}"
            print(f"{name}: token {step}: {told}; logit gap {ours.gaps[step]:.1e}")
            return worst if tie else float("inf")
        worst = max(worst, abs(given.logprobs[step][mine].logprob - ours.log_probabilities[step]))
    return worst


@pytest.fixture
def instructions(monkeypatch):
    """What the processor is told about each request's question, in order."""
    seen = []
    hashes = IgvaMultiModalProcessor._get_mm_hashes

    def recorded(self, inputs):
        seen.append(inputs.hf_processor_mm_kwargs)
        return hashes(self, inputs)

    monkeypatch.setattr(IgvaMultiModalProcessor, "_get_mm_hashes", recorded)
    return seen


# --- the same answers -----------------------------------------------------------------------------------------


def test_32_questions_asked_together(engine, chats, ours):
    names = [name for name in chats if name.startswith("probe-")]
    assert len(names) == 32
    outputs = asked(engine, *(chats[name] for name in names))
    distances = {name: apart(output, ours[name], name) for name, output in zip(names, outputs, strict=True)}
    print(f"largest difference of a log-probability: {max(distances.values()):.1e}")
    assert max(distances.values()) < TOLERANCE, distances
    assert len({tuple(ours[name].ids) for name in names}) > 8  # they are not all the same answer


OTHERS = ("two pictures", "text only", "typed", "typed, text only", "format", "no question", "turns", "system")


@pytest.mark.parametrize("name", OTHERS)
def test_prompt_instruction_and_answer(engine, chats, ours, instructions, name):
    """One by one: the tokens of the prompt, those of the instruction, and the answer are ours."""
    (output,) = asked(engine, chats[name])
    assert output.prompt_token_ids == ours[name].inputs["input_ids"][0]
    pictures = sum(item["type"] == "image" for m in chats[name] for item in m["content"] if isinstance(item, dict))
    if pictures:
        (told,) = instructions
        for field in ("instruction_input_ids", "instruction_attention_mask"):
            assert told[field] * pictures == ours[name].inputs[field]
    else:
        assert not instructions
    assert apart(output, ours[name], name) < TOLERANCE


def test_a_raw_prompt(engine, chats, ours):
    """``LLM.generate``: the client renders the prompt and may say what the instruction is."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(resolve_model("tiny"))
    chat = chats["probe-0"]
    image, question = (item[item["type"]] for item in chat[0]["content"])
    request = {
        "prompt": processor.apply_chat_template(chat, add_generation_prompt=True),
        "multi_modal_data": {"image": image},
        "mm_processor_kwargs": {"instructions": question},
    }
    (output,) = engine.generate(request, greedy(), use_tqdm=False)
    assert apart(output, ours["probe-0"]) < TOLERANCE


def test_a_raw_prompt_is_its_own_instruction(engine, chats, instructions):
    """As where ``IgvaProcessor`` is called with a prompt and nothing else."""
    from transformers import AutoProcessor

    processor = AutoProcessor.from_pretrained(resolve_model("tiny"))
    image = chats["probe-0"][0]["content"][0]["image"]
    prompt = processor.apply_chat_template(chats["probe-0"], add_generation_prompt=True)
    engine.generate({"prompt": prompt, "multi_modal_data": {"image": image}}, greedy(), use_tqdm=False)
    assert instructions == [{k: v for k, v in processor(image, prompt).items() if k.startswith("instruction")}]


# --- two questions about one picture --------------------------------------------------------------------------


def pairs(chats):
    return [(name, name.replace("first", "second")) for name in chats if name.startswith("first-")]


def test_the_second_question_sees_its_own_features(engine, chats, ours):
    """One after the other, all caches on; the third time a prompt comes from the cache and is answered the same."""
    for first, second in pairs(chats):
        forget(engine)
        for name in (first, second, first):
            (output,) = asked(engine, chats[name])
            assert apart(output, ours[name], name) < TOLERANCE
        assert output.num_cached_tokens >= 64, "the prefix cache knows the picture with its question"


def test_it_would_not_without_the_instruction_in_the_hash(engine, chats, ours, monkeypatch):
    """The control: the same questions with a hash of the picture alone; the first one's features answer both."""
    hashes = IgvaMultiModalProcessor._get_mm_hashes
    monkeypatch.setattr(
        IgvaMultiModalProcessor,
        "_get_mm_hashes",
        lambda self, inputs: hashes(self, replace(inputs, hf_processor_mm_kwargs={})),
    )
    for first, second in pairs(chats):
        forget(engine)
        outputs = [asked(engine, chats[name])[0] for name in (first, second)]
        assert apart(outputs[0], ours[first], first) < TOLERANCE
        assert outputs[1].num_cached_tokens >= 64
        assert apart(outputs[1], ours[second], second) > 10 * TOLERANCE
    forget(engine)


# --- what is refused ------------------------------------------------------------------------------------------


def test_unknown_processor_options(engine, chats):
    with pytest.raises(ValueError, match="takes no option 'max_pixels'; it takes 'instructions'"):
        engine.chat(for_vllm(chats["probe-0"]), greedy(), mm_processor_kwargs={"max_pixels": 4}, use_tqdm=False)


def test_another_tokenizer_mode():
    from types import SimpleNamespace

    from igva.serve.vllm_model import IgvaForConditionalGeneration

    config = SimpleNamespace(model_config=SimpleNamespace(tokenizer_mode="hf"))
    with pytest.raises(ValueError, match="loses the question"):
        IgvaForConditionalGeneration(vllm_config=config)


# --- parts ----------------------------------------------------------------------------------------------------


def test_registering_again_changes_nothing():
    from vllm.model_executor.models.registry import ModelRegistry

    register()
    before = ModelRegistry.models[ARCHITECTURE]
    register()
    assert ModelRegistry.models[ARCHITECTURE] is before


def test_rows_of_different_sizes():
    rows = [torch.ones(1, 3), torch.ones(2, 2)]
    assert pad_rows(rows).tolist() == [[[1, 1, 1], [0, 0, 0]], [[1, 1, 0], [1, 1, 0]]]
    assert pad_rows(torch.ones(2, 1, 3)).shape == (2, 1, 3)

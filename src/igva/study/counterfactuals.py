"""What a model would answer with other layer weights: each group left out, each alone, all alike, or the weights of
another question."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from igva.checkpoints.store import write_errors
from igva.data.images import open_image
from igva.eval.metrics import score_one
from igva.eval.questions import Question
from igva.eval.run import chat_of
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor
from igva.model.vision_layers import VisionLayers
from igva.study.weights import Change, alike, forced_weights, group_names, only, without

ANSWERS = "answers.jsonl"
AS_IS = "as it is"
ALIKE = "all groups alike"
SWAPPED = "weights of another question"


def conditions(names: Sequence[str]) -> dict[str, Change | None]:
    """What is done to the weights, by name; None where the fusion weighs by itself."""
    changes: dict[str, Change | None] = {AS_IS: None, SWAPPED: None, ALIKE: alike}
    changes |= {f"without {name}": without(k) for k, name in enumerate(names)}
    changes |= {f"{name} alone": only(k) for k, name in enumerate(names)}
    return changes


def answer_all(
    model: IgvaForConditionalGeneration,
    processor: IgvaProcessor,
    questions: Sequence[Question],
    others: Mapping[str, str],
    out: Path,
    *,
    batch_size: int = 16,
    max_new_tokens: int = 16,
) -> dict[str, dict[str, str]]:
    """Every question answered under every condition; goes on where an earlier call into the folder stopped.

    Args:
        others: question id → the question whose weights it gets under ``SWAPPED``; the language model still reads the
            question itself. Questions without one are left out there.

    Returns:
        Condition → question id → answer.
    """
    file = out / ANSWERS
    done = _read(file)
    # Questions about one picture share a batch, so that its tower pass is shared too.
    todo = sorted((q for q in questions if q.id not in done), key=lambda q: str(q.image))
    changes = conditions(group_names(model))
    with (
        write_errors(file),
        file.open("a", encoding="utf-8") as sink,
        tqdm(total=len(questions), initial=len(questions) - len(todo), desc="answers", unit="question") as bar,
    ):
        for start in range(0, len(todo), batch_size):
            batch = todo[start : start + batch_size]
            asked = _Batch(model, processor, batch, [others.get(q.id, q.question) for q in batch])
            answers = {name: asked.answers(change, name == SWAPPED, max_new_tokens) for name, change in changes.items()}
            for row, question in enumerate(batch):
                done[question.id] = {name: texts[row] for name, texts in answers.items()}
                if question.id not in others:
                    del done[question.id][SWAPPED]
                sink.write(json.dumps({"id": question.id, "answers": done[question.id]}) + "\n")
            sink.flush()
            bar.update(len(batch))
    wanted = [question.id for question in questions]
    return {name: {i: done[i][name] for i in wanted if name in done[i]} for name in changes}


def _read(file: Path) -> dict[str, dict[str, str]]:
    done = {}
    for line in file.read_text(encoding="utf-8").split("\n") if file.is_file() else ():
        try:
            entry = json.loads(line)
        except json.JSONDecodeError:  # the last line of a run that was killed
            continue
        done[entry["id"]] = entry["answers"]
    return done


class _Batch:
    """Questions whose pictures went through the tower once; answers them under one condition after another."""

    @torch.inference_mode()
    def __init__(
        self,
        model: IgvaForConditionalGeneration,
        processor: IgvaProcessor,
        questions: Sequence[Question],
        others: Sequence[str],
    ):
        self.model, self.processor = model, processor
        images = list(dict.fromkeys(question.image for question in questions))
        pictures = {image: open_image(image) for image in images}
        chats = [chat_of(question, pictures[question.image]) for question in questions]
        inputs = processor.apply_chat_template(
            chats, tokenize=True, return_dict=True, return_tensors="pt", add_generation_prompt=True, padding=True
        ).to(model.device)
        firsts = [next(row for row, q in enumerate(questions) if q.image == image) for image in images]
        layers = model.model.encode_image_layers(inputs.pop("pixel_values")[firsts])
        rows = [images.index(question.image) for question in questions]
        self.layers = VisionLayers(layers.patches[rows], layers.descriptors[rows])
        self.text = {name: inputs[name] for name in ("input_ids", "attention_mask")}
        self.own = {name: value for name, value in inputs.items() if name.startswith("instruction_")}
        turns = [processor.user_turns([{"role": "user", "content": other}]) for other in others]
        encoded = processor.encode_instructions(turns) if self.own else {}
        self.other = {name: torch.tensor(value).to(model.device) for name, value in encoded.items()}

    @torch.inference_mode()
    def answers(self, change: Change | None, swapped: bool, max_new_tokens: int) -> list[str]:
        instruction: dict[str, Any] = self.other if swapped else self.own
        with forced_weights(self.model, change) if change else nullcontext():
            features = self.model.get_image_features(
                layer_patches=self.layers.patches, layer_descriptors=self.layers.descriptors, **instruction
            )
        ids = self.model.generate(
            **self.text, mm_encoder_outputs={"image": features}, max_new_tokens=max_new_tokens, do_sample=False
        )
        texts: list[str] = self.processor.tokenizer.batch_decode(
            ids[:, self.text["input_ids"].shape[1] :], skip_special_tokens=True
        )
        return [text.strip() for text in texts]


def score_answers(
    questions: Sequence[Question], answers: Mapping[str, Mapping[str, str]]
) -> dict[str, dict[str, float]]:
    """Condition → question id → score in 0..1."""
    by_id = {question.id: question for question in questions}
    return {name: {i: float(score_one(by_id[i], text)) for i, text in texts.items()} for name, texts in answers.items()}

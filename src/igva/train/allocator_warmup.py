"""Allocator warm-up: the fusion learns what a question needs before the language model is touched.

What the language-model loss teaches the allocator in a budget that fits one device is next to nothing
(docs/guidance.md). So it is trained first, with a small readout in the language model's place (`question_readout`),
which is thrown away: on cached layer means and sentence vectors, on every question of the training data whose
answer is one of many. It is to the allocator what the dense warm-up is to the projector. The paper (arXiv 2501.08443)
has no such step.

Letters: ``B`` questions of a batch, ``C`` answers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from accelerate.utils import broadcast
from torch import nn
from tqdm import tqdm
from transformers import get_cosine_schedule_with_warmup

from igva.data.images import ImageSource
from igva.data.imagined import without_imagined
from igva.data.records import Record
from igva.errors import UserError
from igva.model.modeling_igva import IgvaForConditionalGeneration
from igva.model.processing_igva import IgvaProcessor, instruction_text
from igva.model.vision_layers import VisionLayers
from igva.train.arguments import Recipe
from igva.train.distributed import world_size
from igva.train.feature_cache import LayerCache
from igva.train.guidance import GuidanceProbe
from igva.train.question_readout import Readout, SentenceFeatures, endless_batches

LONGEST = 5  # words of an answer that can be chosen; what is longer is told, not chosen
MOST_ANSWERS = 2000  # the most frequent ones


@dataclass(frozen=True)
class ClosedQuestion:
    """A question about one picture whose answer is among those that can be chosen."""

    image: ImageSource
    question: str
    answer: str
    source: str


def closed_questions(records: Iterable[Record], placeholder: str, least: int) -> list[ClosedQuestion]:
    """The questions of conversations about one picture, with short answers that come up often enough.

    Args:
        placeholder: what stands for the picture in a text.
        least: how often an answer has to be given somewhere in the data.
    """
    questions = [
        ClosedQuestion(record.images[0], question, answer, record.source)
        for record in without_imagined(list(records))
        if len(record.images) == 1
        for question, answer in _turns(record, placeholder)
        if question and len(answer.split()) <= LONGEST
    ]
    counts = Counter(each.answer for each in questions)
    chosen = {answer for answer, count in counts.most_common(MOST_ANSWERS) if count >= least}
    return [each for each in questions if each.answer in chosen]


def _turns(record: Record, placeholder: str) -> Iterator[tuple[str, str]]:
    for asked, said in zip(record.chat, record.chat[1:], strict=False):
        if (asked["role"], said["role"]) == ("user", "assistant"):
            yield instruction_text(_text(asked), placeholder), _text(said).strip()


def _text(message: dict[str, Any]) -> str:
    content = message["content"]
    return content if isinstance(content, str) else "".join(part.get("text", "") for part in content)


def warm_up_allocator(
    model: IgvaForConditionalGeneration,
    processor: IgvaProcessor,
    recipe: Recipe,
    layers: LayerCache,
    records: Sequence[Record],
) -> dict[str, float]:
    """Train the fusion's own parameters together with a readout that is then thrown away.

    Args:
        layers: filled with the pictures of ``records``; questions about those that are bad are left out.

    Returns:
        ``allocator_warm_up_loss`` and ``_right`` (share of the answers), means over the last tenth of the steps;
        ``_guidance``: how much of the weight moves when the pictures are asked each other's questions.

    Raises:
        UserError: the fusion reads no question, or the data has no questions with answers to choose among.
    """
    settings, fusion = recipe.allocator, model.model.fusion
    if not fusion.needs_instruction:
        raise UserError(f"fusion {model.config.fusion!r} reads no question: set allocator.steps=0")
    sound = [record for record in records if not any(str(image) in layers.bad for image in record.images)]
    questions = closed_questions(sound, processor.image_token, settings.least)
    answers = list(dict.fromkeys(each.answer for each in questions))
    if len(answers) < 2:
        raise UserError(
            "the allocator's warm-up needs questions with short answers that come more than once: set allocator.steps=0"
        )
    sentences = SentenceFeatures(model, processor)
    sentences.fill([each.question for each in questions], answers)
    numbers = {answer: number for number, answer in enumerate(answers)}
    means = sentences.vectors(answers).to(model.device)  # (C, E)
    with torch.random.fork_rng():
        torch.manual_seed(recipe.optim.seed)  # the same on every device
        readout = Readout(
            visual_dim=fusion.output_dim,
            num_tokens=fusion.num_tokens,
            text_dim=sentences.width,
            num_answers=len(answers),
        ).to(model.device)
    optimizer = torch.optim.AdamW(
        [
            {"params": list(readout.parameters()), "lr": settings.learning_rate},
            {"params": list(fusion.parameters()), "lr": settings.fusion_lr},
        ],
        weight_decay=0.01,
    )
    schedule = get_cosine_schedule_with_warmup(optimizer, max(1, settings.steps // 20), settings.steps)
    history: list[tuple[float, float, float]] = []
    fusion.train()
    probe = GuidanceProbe(fusion)
    batches = endless_batches(questions, settings.batch_size, recipe.optim.seed)
    with tqdm(total=settings.steps, desc="allocator warm-up", unit="step") as bar:
        for _ in range(settings.steps):
            batch = next(batches)
            asked = sentences.vectors([each.question for each in batch]).to(model.device)
            shown = layers([each.image for each in batch]).to(device=model.device, dtype=torch.float32)
            if recipe.data.zero_images:
                shown = VisionLayers(torch.zeros_like(shown.patches), torch.zeros_like(shown.descriptors))
            probe.wanted = True
            with torch.autocast(model.device.type, torch.bfloat16, enabled=recipe.optim.bf16 is True):
                mixed = model.model.mix(shown, asked)
                words, padding = sentences.states([each.question for each in batch])
                logits = readout(mixed.features, words.to(model.device), padding.to(model.device), means)
            wanted = torch.tensor([numbers[each.answer] for each in batch], device=model.device)
            loss = nn.functional.cross_entropy(logits.float(), wanted)
            optimizer.zero_grad()
            (loss if mixed.aux_loss is None else loss + mixed.aux_loss).backward()
            optimizer.step()
            schedule.step()
            right = (logits.argmax(dim=-1) == wanted).float().mean().item()
            guided = probe.measure([each.source for each in batch]) or 0.0
            history.append((loss.item(), right, guided))
            bar.update()
            bar.set_postfix(loss=f"{loss.item():.3f}", right=f"{right:.1%}", guidance=f"{guided:.1%}")
    if world_size() > 1:  # sharding tells the devices nothing of each other's fusions
        for parameter in fusion.parameters():
            parameter.data.copy_(broadcast(parameter.data))
    last = torch.tensor(history[-max(1, settings.steps // 10) :]).mean(dim=0).tolist()
    names = ("allocator_warm_up_loss", "allocator_warm_up_right", "allocator_warm_up_guidance")
    return {name: round(value, 4) for name, value in zip(names, last, strict=True)}

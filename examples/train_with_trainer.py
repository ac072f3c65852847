"""Train an igva model with transformers' own Trainer; what igva adds is the processor, called by a collator.

    pip install 'igva[train]'
    python examples/train_with_trainer.py MODEL DATA.json OUT [--steps 100]

DATA.json: a list of {"image": "photo.jpg", "question": "…", "answer": "…"}; pictures are looked for beside it. The loss
is on the answers. OUT is a model like any other: igva ask photo.jpg "…" --model OUT
"""

import argparse
import json
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from transformers import Trainer, TrainingArguments

import igva


class Collator:
    """Entries of DATA.json → the model's inputs, with labels at the answers."""

    def __init__(self, processor: Any, folder: Path) -> None:
        self.processor, self.folder = processor, folder

    def __call__(self, entries: list[dict[str, str]]) -> dict[str, Any]:
        chats, prompts = [], []
        for entry in entries:
            picture = {"type": "image", "image": Image.open(self.folder / entry["image"])}
            prompt = [{"role": "user", "content": [picture, {"type": "text", "text": entry["question"]}]}]
            prompts.append(prompt)
            chats.append([*prompt, {"role": "assistant", "content": entry["answer"]}])
        options = {"tokenize": True, "return_dict": True, "return_tensors": "pt"}
        batch = self.processor.apply_chat_template(chats, **options, padding=True, padding_side="right")
        labels = batch["input_ids"].masked_fill(batch["attention_mask"] == 0, -100)
        for row, prompt in enumerate(prompts):
            asked = self.processor.apply_chat_template([prompt], **options, add_generation_prompt=True)
            labels[row, : asked["input_ids"].shape[1]] = -100
        return {**batch, "labels": labels}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=100)
    args = parser.parse_args()

    model, processor = igva.load(args.model, dtype="float32")  # what is trained; computed in bfloat16 on a GPU
    for encoder in (model.model.vision_tower, model.model.instruction_encoder):
        if encoder is not None:  # fusions that read no question need none
            encoder.requires_grad_(False)
    settings = TrainingArguments(
        output_dir=f"{args.out}-checkpoints",
        max_steps=args.steps,
        learning_rate=2e-5,
        bf16=torch.cuda.is_available(),
        remove_unused_columns=False,  # the collator reads them
        save_strategy="no",
        report_to=[],
    )
    entries = json.loads(args.data.read_text())
    trainer = Trainer(model, settings, train_dataset=entries, data_collator=Collator(processor, args.data.parent))
    trainer.train()
    trainer.save_model(args.out)
    processor.save_pretrained(args.out)


if __name__ == "__main__":
    main()

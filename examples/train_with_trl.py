"""Train an igva model with TRL's SFTTrainer: its fusion, projector and language model, on questions with answers.

    pip install 'igva[train]' trl datasets
    python examples/train_with_trl.py MODEL DATA.json OUT [--steps 100]

DATA.json: a list of {"image": "photo.jpg", "question": "…", "answer": "…"}; pictures are looked for beside it. The loss
is on the answers. OUT is a model like any other: igva ask photo.jpg "…" --model OUT
"""

import argparse
import json
from pathlib import Path

import torch
from datasets import Dataset, Features, Image, Value
from datasets import List as Several
from trl import SFTConfig, SFTTrainer

import igva


def rows(path: Path) -> Dataset:
    """Prompts and completions as TRL reads them; pictures are opened as they are needed."""
    message = {"role": Value("string"), "content": Value("string")}
    features = Features({"images": Several(Image()), "prompt": Several(message), "completion": Several(message)})
    entries = [
        {
            "images": [str(path.parent / entry["image"])],
            "prompt": [{"role": "user", "content": entry["question"]}],
            "completion": [{"role": "assistant", "content": entry["answer"]}],
        }
        for entry in json.loads(path.read_text())
    ]
    return Dataset.from_list(entries, features=features)


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
    settings = SFTConfig(
        output_dir=f"{args.out}-checkpoints",
        max_steps=args.steps,
        learning_rate=2e-5,
        max_length=None,  # truncation would cut visual tokens
        completion_only_loss=True,
        bf16=torch.cuda.is_available(),
        save_strategy="no",
        report_to=[],
    )
    trainer = SFTTrainer(model, args=settings, train_dataset=rows(args.data), processing_class=processor)
    trainer.train()
    trainer.save_model(args.out)
    processor.save_pretrained(args.out)


if __name__ == "__main__":
    main()

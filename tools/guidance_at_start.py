"""How far question and picture move igva's weights before anything is learnt: means over five random allocators.

    .venv/bin/python tools/guidance_at_start.py data/probe-val/questions.json

The allocator has the paper's size (width 1024, 4 blocks, 4 heads), the layers of the model's tower are groups of their
own. Every picture is given the question, or every question the picture, of another entry of the file.
"""

import argparse
from pathlib import Path

import torch

import igva
from igva.data.images import open_image
from igva.data.questions import read_questions
from igva.model.fusions import build_fusion
from igva.model.vision_layers import VisionLayers
from igva.study.weights import sentence_vectors
from igva.train.guidance import total_variation

SEEDS, SHIFT = 5, 7


@torch.inference_mode()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("questions", type=Path)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--limit", type=int, default=128)
    args = parser.parse_args()
    model, processor = igva.load(args.model)
    questions = read_questions(args.questions)[: args.limit]
    asked = sentence_vectors(model, processor, [question.question for question in questions])
    pixels = processor.prepare_images([open_image(question.image) for question in questions])
    shown, taps = model.model.encode_image_layers(pixels).normalized(), model.model.fusion.taps
    dims = model.config.fusion_dims()
    options = {"groups": [[layer + 1] for layer in range(dims.num_layers)], "base_layer": -2}
    for query_norm in (False, True):
        found = []
        for seed in range(SEEDS):
            torch.manual_seed(seed)
            fusion = build_fusion("igva", {**options, "query_norm": query_norm}, dims).eval()
            rows = [taps.index(tap) for tap in fusion.taps]
            own = VisionLayers(shown.patches[:, rows], shown.descriptors[:, rows])
            other = VisionLayers(own.patches.roll(SHIFT, 0), own.descriptors.roll(SHIFT, 0))
            weights = fusion(own, asked).weights
            allocator = fusion.allocator
            found.append(
                [
                    100 * total_variation(weights, fusion(own, asked.roll(SHIFT, 0)).weights).mean(),
                    100 * total_variation(weights, fusion(other, asked).weights).mean(),
                    allocator.query_proj(allocator.query_norm(asked)).std(),
                    allocator.key_proj(fusion.groups(own).descriptors).std(),
                ]
            )
        question, picture, query, key = torch.tensor(found).mean(dim=0).tolist()
        print(
            f"query_norm={str(query_norm).lower():5s}  another question {question:5.1f} points, another picture "
            f"{picture:5.1f}; standard deviation of query {query:.3f}, keys {key:.3f}"
        )


if __name__ == "__main__":
    main()

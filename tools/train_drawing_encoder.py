"""Fine-tune the second encoder of ``embedded:vision``: EfficientNet-Lite0 once more, on drawings by many hands.

    python tools/build_drawing_bank.py …                        # bank.zip and index.json, see there
    for seed in 101 102 103; do igva probe build --split train --count 2000 --seed $seed --out data/draw-$seed; done
    python tools/train_drawing_encoder.py --bank /tmp/bank --scenes 'data/draw-*' --seconds 170

Each cell of an 8×8 grid learns the name of what is drawn there, or the word that is written, or the colour of the
background; each place of 8 pixels in a line of text learns its letter from stage 5. Two kinds of pictures: the bank's
drawings put together at random on the device that trains, and scenes of the probe suite's training split with their
cell labels. Folders of scenes are used from when they are complete, so they may still be in the making.

Writes ``tiny_drawings.safetensors`` (the difference to the published weights, in 8 bits) and ``tiny_drawings.json``
(the classes) into ``--out``, by default beside the weights that ship. An accelerator is wanted: on a CPU a step of 256
pictures takes a minute.
"""

import argparse
import copy
import itertools
import math
import time
from pathlib import Path

import torch
from drawing_encoder import scenes, sprites, text
from drawing_encoder.compose import Composer
from drawing_encoder.export import export
from torch import nn

from igva.model.efficientnet_lite import EfficientNetLiteModel
from igva.parts.cache import fetch_parts
from igva.parts.efficientnet import MEAN, STD
from igva.parts.shipped import TOWER
from igva.probe.scenes import BACKDROP, COLORS

STAGE = 5  # whose map spells: stride 16, so four places of 8 pixels to a position
BACKGROUND_WEIGHT = 0.15  # of cells that show a background: most do
NO_LETTER_WEIGHT = 0.05


class Student(nn.Module):
    """The encoder, a classifier of cells on its head, and a speller on ``STAGE``."""

    def __init__(self, encoder: EfficientNetLiteModel, classes: int):
        super().__init__()
        self.encoder = encoder
        sizes = encoder.config.layer_sizes
        self.classifier = nn.Linear(encoder.config.head_size, classes)
        self.speller = nn.Conv2d(sizes[STAGE], 4 * len(text.LETTERS), 1)

    def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """``(I, 3, 256, 256)`` from 0 to 1 → cells ``(I, 64, V)`` and letters ``(I, L, 32, 32)``."""
        maps = self.encoder((pixels - MEAN) / STD, output_hidden_states=True).hidden_states
        cells = self.classifier(maps[-1].movedim(1, -1)).flatten(1, 2)
        return cells, nn.functional.pixel_shuffle(self.speller(maps[STAGE]), 2)


def losses(cells: torch.Tensor, letters: torch.Tensor, wanted: torch.Tensor, spelt: torch.Tensor, weight: torch.Tensor):
    """Mean cross-entropy of the cells and of the letters; -100 counts for nothing."""
    cell = nn.functional.cross_entropy(cells.float().flatten(0, 1), wanted.flatten(), weight, label_smoothing=0.05)
    letter_weight = torch.ones(len(text.LETTERS), device=cells.device)
    letter_weight[0] = NO_LETTER_WEIGHT
    return cell, nn.functional.cross_entropy(letters.float(), spelt, letter_weight)


def learning_rate(share: float, peak: float) -> float:
    """Up over the first twentieth, then a cosine down to a hundredth."""
    if share < 0.05:
        return peak * (0.05 + 0.95 * share / 0.05)
    return peak * (0.01 + 0.99 * (1 + math.cos(math.pi * (share - 0.05) / 0.95)) / 2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--bank", type=Path, required=True, help="folder with bank.zip and index.json")
    parser.add_argument("--scenes", default="", help="glob of folders that igva probe build writes")
    parser.add_argument("--seconds", type=float, default=170, help="how long to train")
    parser.add_argument(
        "--steps", type=int, help="end after so many steps at the latest, and let the rate fall by them"
    )
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--look", type=Path, help="write the first composed pictures here and end")
    parser.add_argument("--watch", type=Path, help="a folder of question folders: print how many are named")
    parser.add_argument("--out", type=Path, default=TOWER.parent)
    args = parser.parse_args()
    torch.manual_seed(0)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    bank = sprites.Bank(args.bank, device)
    names = sorted({*bank.names, *scenes.vocabulary()})
    number = {name: place for place, name in enumerate(names)}
    lines = text.Lines(number, device)
    print(f"{len(bank.labels)} drawings, {len(names)} classes, {len(lines.words)} lines of text", flush=True)
    composer = Composer(bank, lines, number)
    if args.look:
        composer.sheet(args.look)
        return
    published = EfficientNetLiteModel.from_pretrained(fetch_parts(("efficientnet",))["efficientnet"])
    student = Student(copy.deepcopy(published), len(names)).to(device, memory_format=torch.channels_last)
    average = torch.optim.swa_utils.AveragedModel(
        student, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(0.995), use_buffers=True
    )
    new = [*student.classifier.parameters(), *student.speller.parameters()]
    optimizer = torch.optim.AdamW(
        [{"params": new, "scale": 2.0}, {"params": list(student.encoder.parameters()), "scale": 1.0}],
        lr=args.lr,
        weight_decay=0.02,
    )
    weight = torch.ones(len(names), device=device)
    weight[[number[word] for word in (*COLORS, BACKDROP)]] = BACKGROUND_WEIGHT
    drawn = scenes.Scenes(args.scenes, number, device)
    watched = scenes.Watch(args.watch, number, device) if args.watch else None
    start = last = time.monotonic()
    for step in itertools.count():
        spent = (time.monotonic() - start) / args.seconds
        if spent >= 1 or step == args.steps:
            break
        share = step / args.steps if args.steps else spent
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(share, args.lr) * group["scale"]
        pixels, wanted, spelt = composer(args.batch if drawn.empty() else args.batch * 5 // 8)
        if not drawn.empty():
            more = drawn(args.batch - len(pixels))
            pixels, wanted = torch.cat([pixels, more[0]]), torch.cat([wanted, more[1]])
            spelt = torch.cat([spelt, torch.full((len(more[0]), 32, 32), -100, device=device)])
        student.train()
        with torch.autocast(device.type, torch.bfloat16, enabled=device.type == "cuda"):
            cells, letters = student(pixels.contiguous(memory_format=torch.channels_last))
            cell, letter = losses(cells, letters, wanted, spelt, weight)
        optimizer.zero_grad()
        (cell + 0.5 * letter).backward()
        nn.utils.clip_grad_norm_(student.parameters(), 5.0)
        optimizer.step()
        average.update_parameters(student)
        if time.monotonic() - last > 10 or step == 0:
            last = time.monotonic()
            thing = weight[wanted.clamp_min(0)].eq(1) & wanted.ge(0)
            right = cells.argmax(-1).eq(wanted)[thing].float().mean().item()
            letter_right = letters.argmax(1).eq(spelt)[spelt > 0].float().mean().item()
            print(
                f"{last - start:6.1f} s  step {step}  loss {cell.item():.3f} {letter.item():.3f}  "
                f"cells of things {right:.1%}, letters {letter_right:.1%}, scenes {drawn.count}",
                flush=True,
            )
            if watched and step:
                print(watched(average.module), flush=True)
    average.module.eval()
    if watched:
        print(watched(average.module), flush=True)
    export(published, average.module.cpu(), names, args.out)


if __name__ == "__main__":
    main()

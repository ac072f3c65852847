"""Draw the loss of a finished or running training run, with that on held-out data where the recipe has some.

.venv/bin/python tools/learning_curve.py runs/tiny_instruct curve.png
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

from igva.train.snapshots import snapshots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="output folder of the run")
    parser.add_argument("picture", type=Path)
    args = parser.parse_args()
    newest = snapshots(args.run)[-1]
    log = json.loads((newest / "trainer_state.json").read_text())["log_history"]
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    for key, style, label in (("lm_loss", "-", "in training"), ("eval_loss", "o--", "on held-out pictures")):
        points = [(entry["step"], entry[key]) for entry in log if key in entry]
        if points:
            axes.plot(*zip(*points, strict=True), style, label=label)
    axes.legend()
    axes.set(xlabel="step", ylabel="loss of the answers", yscale="log")
    axes.grid(alpha=0.3)
    figure.savefig(args.picture, dpi=110)


if __name__ == "__main__":
    main()

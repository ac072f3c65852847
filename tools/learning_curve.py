"""Draw the loss of training runs that went on from each other, with that on held-out data where a recipe has some.

.venv/bin/python tools/learning_curve.py runs/tiny_turns runs/tiny_instruct --out curve.png
"""

import argparse
import json
from pathlib import Path

import matplotlib.pyplot as plt

from igva.train.snapshots import snapshots


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="output folders, finished or running")
    parser.add_argument("--out", type=Path, required=True, metavar="FILE", help="the picture")
    args = parser.parse_args()
    figure, axes = plt.subplots(figsize=(6, 3), layout="constrained")
    start = 0
    for number, run in enumerate(args.runs):
        state = json.loads((snapshots(run)[-1] / "trainer_state.json").read_text())
        for key, style, label in (("lm_loss", "-", run.name), ("eval_loss", "o--", f"{run.name}, held-out pictures")):
            points = [(start + entry["step"], entry[key]) for entry in state["log_history"] if key in entry]
            if points:
                axes.plot(*zip(*points, strict=True), style, color=f"C{number}", label=label)
        start += state["global_step"]
    axes.legend()
    axes.set(xlabel="step", ylabel="loss of the answers")
    axes.grid(alpha=0.3)
    figure.savefig(args.out, dpi=110)


if __name__ == "__main__":
    main()

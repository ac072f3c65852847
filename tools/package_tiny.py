"""Put a finished ``tiny_instruct`` run into the package.

    .venv/bin/python tools/package_tiny.py runs/tiny_instruct

Writes ``src/igva/weights/tiny.safetensors`` (what was trained, its matrices in 8 bits) and ``tiny.json`` (how the parts
are put together: the run's model section).
"""

import argparse
import json
from pathlib import Path

from safetensors.torch import save_file

from igva.checkpoints.tiny import SETTINGS, TRAINED
from igva.checkpoints.trained import TRAINED_FILE, read_trained
from igva.eight_bits import to_int8

LIMIT_MB = 20


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("run", type=Path, help="output folder of the run")
    args = parser.parse_args()
    settings = json.loads((args.run / "run.json").read_text())["recipe"]["model"]
    for key in (
        "init_from",
        "retrofit",
        "add_vision",
        "dtype",
        "attention",
    ):  # where and how it was trained, not what it is
        settings.pop(key)
    tensors, scale = read_trained(args.run / TRAINED_FILE)
    small = to_int8(tensors)
    TRAINED.parent.mkdir(exist_ok=True)
    save_file(small, TRAINED, metadata={"format": "pt", "lora_scale": repr(scale)})
    SETTINGS.write_text(json.dumps(settings, indent=2) + "\n")
    TRAINED.chmod(0o644)  # safetensors writes for the owner alone
    size = TRAINED.stat().st_size / 1e6
    if size > LIMIT_MB:
        raise SystemExit(f"{TRAINED} has {size:.1f} MB, more than the {LIMIT_MB} MB that ship")
    print(f"{TRAINED}: {len(tensors)} tensors, {size:.1f} MB")


if __name__ == "__main__":
    main()

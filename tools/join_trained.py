"""Begin a run with the language model of one run and the projector of another, as one folder for ``model.init_from``.

    .venv/bin/python tools/join_trained.py runs/old_tiny runs/tiny_align runs/tiny_start

From the first: LoRA factors and visual positions, which say where a token lies whatever made it; with ``--fusion`` its
fusion too. From the second: everything else it trained. For a tower that was exchanged under a language model that had
learnt to read the old one, or for a projector that was warmed up further beside a fusion of its own.
"""

import argparse
from pathlib import Path

from safetensors.torch import save_file

from igva.checkpoints.trained import TRAINED_FILE, read_trained

KEPT = (".lora_A", ".lora_B", "projector.positions.weight")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("language", type=Path, help="folder with the trained.safetensors of the one")
    parser.add_argument("projector", type=Path, help="folder with that of the other")
    parser.add_argument("out", type=Path)
    parser.add_argument("--fusion", action="store_true", help="keep the fusion of the first as well")
    args = parser.parse_args()
    language, scale = read_trained(args.language / TRAINED_FILE)
    projector, _ = read_trained(args.projector / TRAINED_FILE)
    joined = projector | {
        name: value
        for name, value in language.items()
        if name.endswith(KEPT) or (args.fusion and name.startswith("fusion."))
    }
    args.out.mkdir(parents=True, exist_ok=True)
    file = args.out / TRAINED_FILE
    save_file({name: value.contiguous() for name, value in joined.items()}, file, metadata={"lora_scale": repr(scale)})
    print(f"{file}: {len(joined)} tensors")


if __name__ == "__main__":
    main()

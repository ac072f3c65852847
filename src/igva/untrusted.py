"""Folders of other people: what transformers would open or run of them, and igva does not.

Every ``from_pretrained`` of an Auto class says ``trust_remote_code=False``: left out, transformers asks on standard
input whether to run the folder's code, and a "y" that was meant for something else would do.
"""

from __future__ import annotations

import json
from pathlib import Path

from igva.errors import UserError

CONFIG_FILE = "config.json"  # of a model folder


def check_index(folder: Path) -> None:
    """See that the index of a sharded checkpoint names safetensors files of its own folder.

    transformers opens whatever stands there, pickles too, even when it is told to use safetensors alone.

    Raises:
        UserError: it names anything else, or is damaged.
    """
    for index in sorted(folder.glob("*.safetensors.index.json")):
        try:
            files = json.loads(index.read_text(encoding="utf-8"))["weight_map"].values()
            others = sorted({str(name) for name in files if not _is_own(name)})
        except (OSError, ValueError, KeyError, AttributeError, TypeError, RecursionError) as error:
            raise UserError(f"{index} is damaged: copy it again") from error
        if others:
            raise UserError(
                f"{index} names {others[0][:100]!r}, which is no safetensors file of this folder: other formats can "
                "run code when opened; convert them to safetensors where you trust them"
            )


def _is_own(name: object) -> bool:
    return isinstance(name, str) and name.endswith(".safetensors") and Path(name).name == name


def check_model_folder(path: Path) -> None:
    """Raise ``UserError`` unless the folder holds a configuration and safetensors weights; nothing is unpickled."""
    if not path.is_dir():
        raise UserError(f"{path} is not a folder: name the folder that holds config.json and the weights")
    if not (path / CONFIG_FILE).exists():
        raise UserError(f"{path} has no config.json: it is not a model folder")
    check_index(path)
    if any(path.glob("*.safetensors")):
        return
    if pickles := sorted(p.name for p in path.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt")):
        raise UserError(
            f"{path} holds pickled weights ({pickles[0]}), which can run code when opened: "
            "convert them to safetensors where you trust them, with save_pretrained()"
        )
    raise UserError(f"{path} has no weights: copy the *.safetensors files into it")

"""Where the parts of a model come from: folders, hub ids, and the small ones that igva brings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from transformers import AutoConfig, AutoModel

from igva.errors import UserError
from igva.parts.cache import fetch_parts
from igva.parts.table import PARTS
from igva.parts.tower import vision_folder
from igva.paths import is_missing_folder
from igva.untrusted import check_index

EMBEDDED = "embedded:"
VISION = "vision"  # the tower that is put together from several of the embedded parts


def resolve_part(source: str | Path) -> str:
    """The folder or hub id of a part; ``embedded:NAME`` is fetched and converted when first asked for.

    Raises:
        UserError: there is no such folder or embedded part.
    """
    name = str(source)
    if not name.startswith(EMBEDDED):
        if is_missing_folder(name):
            raise UserError(f"{name} does not exist: name the folder of a part, a hub id, or embedded:NAME")
        if Path(name).is_dir():
            check_index(Path(name))
        return name
    part = name.removeprefix(EMBEDDED)
    if part == VISION:
        return str(vision_folder())
    if part not in PARTS:
        raise UserError(f"there is no {name}: choose from {', '.join(EMBEDDED + part for part in (VISION, *PARTS))}")
    return str(fetch_parts([part])[part])


def load_vision_tower(source: str | Path, dtype: torch.dtype = torch.float32) -> Any:
    """The vision model of a checkpoint; of a text-and-vision checkpoint, its vision half."""
    config = AutoConfig.from_pretrained(source, trust_remote_code=False)
    return AutoModel.from_pretrained(
        source, config=getattr(config, "vision_config", config), dtype=dtype, trust_remote_code=False
    )

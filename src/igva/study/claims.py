"""A study's folder belongs to one study: it is taken up again with the same settings, or refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from igva.checkpoints.store import write_errors
from igva.errors import UserError
from igva.study.report import write_file

CLAIM = "settings.json"


def claim(out: Path, settings: dict[str, Any]) -> None:
    """Make the folder and note what it is for.

    Raises:
        UserError: it was begun with other settings (the message names the first that differs), or cannot be written.
    """
    settings = json.loads(json.dumps(settings))
    with write_errors(out):
        out.mkdir(parents=True, exist_ok=True)
        known = out / CLAIM
        before = json.loads(known.read_text(encoding="utf-8")) if known.is_file() else settings
        for key in settings:
            if before.get(key) != settings[key]:
                raise UserError(
                    f"{out} holds a study with {key}={before.get(key)!r}, this one has {settings[key]!r}: "
                    "name another --out"
                )
        write_file(known, (json.dumps(settings, indent=1) + "\n").encode())

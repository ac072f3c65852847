"""Rows of tensors on disk: files of some rows each, memory-mapped, and an index beside each that makes it count."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from igva.files import new_file


class Shards:
    """Rows under keys. Several processes may read and write the same folder at the same time.

    Args:
        folder: is made where it is missing; what is in it already is taken notice of.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._place: dict[str, tuple[str, int]] = {}  # key -> file, row
        self._open: dict[str, Any] = {}
        self.refresh()

    def refresh(self) -> None:
        """Take notice of what another process has written."""
        for index in sorted(self.folder.glob("*.json")):
            for row, key in enumerate(json.loads(index.read_text())):
                self._place[key] = (index.with_suffix(".safetensors").name, row)

    def __contains__(self, key: str) -> bool:
        return key in self._place

    def write(self, keys: Sequence[str], tensors: dict[str, Tensor]) -> None:
        """Add rows, one per key, to each of the tensors.

        The tensors first, then the index: a crash leaves no half-written shard in use. Each writer has temporary names
        of its own; two with the same rows write the same file.
        """
        name = hashlib.sha256("".join(keys).encode()).hexdigest()[:16]
        with new_file(self.folder / f"{name}.safetensors", several_writers=True) as part:
            save_file({which: tensor.contiguous() for which, tensor in tensors.items()}, part)
        with new_file(self.folder / f"{name}.json", several_writers=True) as part:
            part.write_text(json.dumps(list(keys)))
        self._place.update({key: (f"{name}.safetensors", row) for row, key in enumerate(keys)})

    def row(self, key: str, which: str, places: Sequence[int] | None = None) -> Any:
        """The row of a key in one of the tensors; only that is read.

        Args:
            places: along the row's first axis, where not all are wanted: a list of these.
        """
        file, row = self._place[key]
        part = self._file(file).get_slice(which)
        return part[row] if places is None else [part[row, place] for place in places]

    def rows(self, keys: Iterable[str], which: str) -> dict[str, Tensor]:
        """The rows of many keys, each file read once."""
        by_file: dict[str, list[str]] = {}
        for key in keys:
            by_file.setdefault(self._place[key][0], []).append(key)
        tensors: dict[str, Tensor] = {}
        for file, wanted in by_file.items():
            whole = self._file(file).get_tensor(which)
            tensors |= {key: whole[self._place[key][1]].clone() for key in wanted}
        return tensors

    def _file(self, file: str) -> Any:
        if file not in self._open:
            self._open[file] = safe_open(self.folder / file, framework="pt")
        return self._open[file]

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_open": {}}  # other processes open the files for themselves

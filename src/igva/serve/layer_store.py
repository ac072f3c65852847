"""Layer means of recent pictures, so that another question about one need not run the vision tower again."""

from __future__ import annotations

from collections import OrderedDict
from threading import Lock

from igva.model.vision_layers import VisionLayers


class LayerStore:
    """The most recently used layer means, up to so many bytes. What it keeps comes before the fusion: the means depend
    on the picture and the tower alone, never on a question.

    Args:
        max_bytes: 0 keeps nothing.
    """

    def __init__(self, max_bytes: int):
        self.max_bytes, self.bytes, self.hits, self.misses = max_bytes, 0, 0, 0
        self._kept: OrderedDict[str, VisionLayers] = OrderedDict()
        self._lock = Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def get(self, key: str) -> VisionLayers | None:
        """The means of a picture, or None; what was asked for stays longest."""
        with self._lock:
            layers = self._kept.get(key)
            if layers is None:
                self.misses += 1
                return None
            self.hits += 1
            self._kept.move_to_end(key)
            return layers

    def put(self, key: str, layers: VisionLayers) -> None:
        """Keep the means of a picture; the oldest ones make room."""
        size = _size(layers)
        with self._lock:
            if key in self._kept or size > self.max_bytes:
                return
            self._kept[key] = layers
            self.bytes += size
            while self.bytes > self.max_bytes:
                self.bytes -= _size(self._kept.popitem(last=False)[1])


def _size(layers: VisionLayers) -> int:
    return sum(part.numel() * part.element_size() for part in (layers.patches, layers.descriptors))

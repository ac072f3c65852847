"""Memory that was freed goes back to the system, even where small blocks still in use lie above it."""

import sys
from pathlib import Path

import pytest
import torch

from igva.serve.memory import _TRIM, give_back


def resident_mb() -> float:
    with Path("/proc/self/status").open() as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")) / 1024


@pytest.mark.skipif(sys.platform != "linux" or _TRIM is None, reason="glibc's")
def test_what_was_freed_is_given_back():
    blocks = [torch.ones(8192) for _ in range(4000)]  # 32 KiB each, 125 MB: on the heap, not mapped one by one
    kept, full = blocks[::200], resident_mb()
    del blocks
    give_back()
    assert full - resident_mb() > 60 and all(block.sum() == 8192 for block in kept)
    give_back()

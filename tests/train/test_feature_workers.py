"""Layer means from worker processes are those of one process: values, files, and what is said of bad pictures."""

import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from igva.errors import UserError
from igva.testing import tiny_model, tiny_processor
from igva.train import feature_cache, feature_workers
from igva.train.feature_cache import LayerCache
from igva.train.feature_workers import WORTH_WORKERS, worker_count


@pytest.fixture
def pictures(tmp_path, picture):
    """Nine pictures, the fifth damaged."""
    paths = [tmp_path / f"{i}.png" for i in range(9)]
    for i, path in enumerate(paths):
        picture(i).save(path)
    paths[4].write_bytes(b"nothing")
    return paths


def indices(cache):
    """The keys of each shard, in the order they were written."""
    files = sorted(cache.folder.glob("*.json"), key=lambda file: file.stat().st_mtime_ns)
    return [json.loads(file.read_text()) for file in files]


def test_two_workers_leave_what_one_process_leaves(pictures, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(feature_cache, "SHARD", 4)
    model = tiny_model()
    processor = tiny_processor(model)
    one = LayerCache(model, processor, tmp_path / "one", workers=0)
    one.fill(pictures, batch_size=2, on_bad="record")
    assert "worker" not in capfd.readouterr().err
    two = LayerCache(model, processor, tmp_path / "two", workers=2)
    two.fill(pictures[:6], batch_size=2, on_bad="record")
    two.fill(pictures, batch_size=2, on_bad="record")  # the rest
    assert capfd.readouterr().err.count("vision features: 2 workers") == 1  # told once
    assert two.bad == one.bad and list(two.bad) == [str(pictures[4])]
    good = pictures[:4] + pictures[5:]
    torch.testing.assert_close(two(good).patches, one(good).patches)
    torch.testing.assert_close(two(good).descriptors, one(good).descriptors)
    assert indices(two)[0] == indices(one)[0]  # the same shards in the same order, as far as both had the same to do
    with pytest.raises(UserError, match=r"4\.png is not an image igva reads"):
        LayerCache(model, processor, tmp_path / "strict", workers=2).fill(pictures)
    assert not multiprocessing.active_children()


def test_a_worker_that_dies_is_one_line(pictures, tmp_path, monkeypatch):
    model = tiny_model()
    monkeypatch.setattr(feature_workers._Work, "__reduce__", lambda self: (os._exit, (1,)))  # read in the worker
    with pytest.raises(UserError, match=r"died: set data\.feature_workers=0") as caught:
        LayerCache(model, tiny_processor(model), tmp_path / "cache", workers=1).fill(pictures[:2])
    assert "\n" not in str(caught.value)


def test_how_many(monkeypatch):
    cores = {0, 1, 2}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores, raising=False)
    assert worker_count(WORTH_WORKERS, None) == 3
    assert worker_count(WORTH_WORKERS - 1, None) == 0  # over before the processes have started
    assert worker_count(1, 2) == 2 and worker_count(10**6, 0) == 0
    cores |= set(range(64))
    assert worker_count(10**6, None) == 16
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0}, raising=False)
    assert worker_count(10**6, None) == 0
    monkeypatch.setattr(multiprocessing, "current_process", lambda: SimpleNamespace(daemon=True))
    assert worker_count(10**6, 2) == 0  # a data loading process may not start others


KILLED = """
import sys
from pathlib import Path
from igva.testing import tiny_model, tiny_processor
from igva.train import feature_workers
if __name__ == "__main__":
    model = tiny_model()
    work = [[("key", Path(sys.argv[1]))]] * 100000
    with feature_workers.pieces(model.model, tiny_processor(model), ((1,),), work, 2) as found:
        for number, piece in enumerate(found):
            if number == 2:
                import multiprocessing
                print(*(child.pid for child in multiprocessing.active_children()), flush=True)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc").exists(), reason="looks for the process in /proc")
def test_workers_end_with_a_killed_parent(pictures, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(KILLED)
    parent = subprocess.Popen([sys.executable, script, pictures[0]], stdout=subprocess.PIPE, text=True)
    workers = [Path(f"/proc/{worker}") for worker in parent.stdout.readline().split()]
    assert len(workers) == 2 and all(worker.exists() for worker in workers)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    for _ in range(60):
        if not any(worker.exists() for worker in workers):
            return
        time.sleep(0.5)
    for worker in workers:
        os.kill(int(worker.name), signal.SIGKILL)
    pytest.fail("workers live on")

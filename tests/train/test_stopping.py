"""A run that is told to stop writes a checkpoint, says so, and goes on from there as if nothing had been."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from safetensors.torch import load_file
from transformers import TrainerControl

from igva.cli.main import entry
from igva.train import run as run_module
from igva.train.run import run
from igva.train.stopping import StopOnSignal, Stopped


@pytest.fixture(autouse=True)
def heard() -> Any:
    """Whoever began these tests, in the background of a script for instance, may have had Ctrl-C ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class AtStepThree(StopOnSignal):
    """The signal comes in the middle of the third step."""

    number_sent = signal.SIGTERM

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == 2:
            os.kill(os.getpid(), self.number_sent)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_run_goes_on_to_the_same_end(recipe: Any, tmp_path: Path, monkeypatch: Any, number: int) -> None:
    whole = run(recipe("optim.max_steps=5", f"output={tmp_path / 'whole'}"))
    monkeypatch.setattr(AtStepThree, "number_sent", number)
    monkeypatch.setattr(run_module, "StopOnSignal", AtStepThree)
    before = signal.getsignal(number)
    with pytest.raises(Stopped, match="stopped at step 3, a checkpoint is written: go on with --resume") as stopped:
        run(recipe("optim.max_steps=5"))
    assert stopped.value.number == number and signal.getsignal(number) is before
    assert (tmp_path / "run/checkpoint-3").is_dir() and not (tmp_path / "run/trained.safetensors").exists()
    monkeypatch.undo()
    monkeypatch.setenv("IGVA_HOME", str(tmp_path / "home"))
    resumed = run(recipe("optim.max_steps=5"), resume=True)
    ends = [load_file(folder / "trained.safetensors") for folder in (whole, resumed)]
    assert ends[0].keys() == ends[1].keys() and all(ends[0][name].equal(ends[1][name]) for name in ends[0])


def test_the_second_signal_ends_at_once() -> None:
    with pytest.raises(Stopped, match="stopped at once: go on from the last checkpoint") as stopped, StopOnSignal():
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGTERM)
    assert stopped.value.number == signal.SIGTERM


def test_what_another_device_was_told_is_no_signal_of_ones_own(monkeypatch: Any) -> None:
    """The first signal that comes here afterwards, in the midst of the checkpoint, does not end it at once."""
    monkeypatch.setattr("igva.train.stopping._largest", lambda number, device: signal.SIGTERM)
    control = TrainerControl(should_evaluate=True)
    with pytest.raises(Stopped, match="at step 7"), StopOnSignal() as stop:
        stop.on_step_end(SimpleNamespace(device="cpu"), SimpleNamespace(global_step=7), control)
        os.kill(os.getpid(), signal.SIGTERM)
    assert (control.should_save, control.should_training_stop, control.should_evaluate) == (True, True, False)


def test_a_signal_between_two_looks_is_not_lost(monkeypatch: Any) -> None:
    def meanwhile(number: int, device: Any) -> int:
        os.kill(os.getpid(), signal.SIGINT)
        return number

    control = TrainerControl()
    step = SimpleNamespace(device="cpu"), SimpleNamespace(global_step=1), control
    with pytest.raises(Stopped, match="at step 1"), StopOnSignal() as stop:
        monkeypatch.setattr("igva.train.stopping._largest", meanwhile)
        stop.on_step_end(*step)
        assert not control.should_training_stop
        monkeypatch.undo()
        stop.on_step_end(*step)


def test_what_is_ignored_stays_ignored() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        with StopOnSignal():
            assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_who_loads_data_is_not_told() -> None:
    with StopOnSignal():
        child = os.fork()
        if child == 0:
            os.kill(os.getpid(), signal.SIGINT)
            os.kill(os.getpid(), signal.SIGINT)
            os._exit(7)
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 7


def test_beside_the_main_thread_nothing_is_caught() -> None:
    before, seen = signal.getsignal(signal.SIGTERM), []

    def inside() -> None:
        with StopOnSignal():
            seen.append(signal.getsignal(signal.SIGTERM))

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [before]


def test_the_command_line_says_it_in_one_line(monkeypatch: Any, capsys: Any) -> None:
    def stopped(args: Any) -> None:
        raise Stopped("stopped at step 3, a checkpoint is written: go on with --resume", signal.SIGTERM)

    monkeypatch.setattr("igva.cli.train.main", stopped)
    assert entry(["train", "tiny_align"]) == 143
    assert capsys.readouterr().err == "igva: stopped at step 3, a checkpoint is written: go on with --resume\n"


@pytest.mark.slow
def test_a_process_that_is_terminated(recipe: Any, tmp_path: Path) -> None:
    """From outside: no traceback, exit code 143, and a checkpoint where the last line says."""
    recipe()
    command = [sys.executable, "-m", "igva", "train", str(tmp_path / "recipe.yaml"), "optim.max_steps=100000"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as child:
        assert child.stdout is not None
        for line in child.stdout:
            if "'loss'" in line:
                break
        child.send_signal(signal.SIGTERM)
        _, err = child.communicate(timeout=60)
    assert child.returncode == 143, err[-2000:]
    last = err.strip().splitlines()[-1]
    step = int(last.removeprefix("igva: stopped at step ").partition(",")[0])
    assert (tmp_path / f"run/checkpoint-{step}").is_dir() and "Traceback" not in err

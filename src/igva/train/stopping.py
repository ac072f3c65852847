"""A run that is told to stop: it ends the step in hand and writes a checkpoint first, from which it can go on."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType
from typing import Any

import torch
from transformers import TrainerCallback

from igva.train.distributed import world_size

SIGNALS = (signal.SIGTERM, signal.SIGINT)  # what schedulers send before they take a machine away, and Ctrl-C


class Stopped(KeyboardInterrupt):
    """The run was stopped by a signal; the message says what is left of it.

    Attributes:
        number: of the signal.
    """

    def __init__(self, message: str, number: int):
        super().__init__(message)
        self.number = number


class StopOnSignal(TrainerCallback):
    """As a context around training: one of ``SIGNALS`` ends the run behind a checkpoint, a second one at once.

    Of devices that train together one that is told is enough, and all end at the same step. Outside the main thread,
    where Python takes no handlers, nothing changes; nor for a signal that this process was begun to ignore.

    Raises:
        Stopped: on leaving the context, where a signal came.
    """

    def __init__(self) -> None:
        self.step = 0  # at which the run ends, 0: no signal came
        self.number = 0  # of the signal that one of the devices got
        self._told = 0  # of the signal that this process got
        self._process = os.getpid()
        self._before: dict[int, Any] = {}

    def __enter__(self) -> StopOnSignal:
        if threading.current_thread() is threading.main_thread():
            wanted = [number for number in SIGNALS if signal.getsignal(number) is not signal.SIG_IGN]
            self._before = {number: signal.signal(number, self._note) for number in wanted}
        return self

    def __exit__(self, kind: type[BaseException] | None, *exception: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)
        if kind is None and self.step:
            raise Stopped(f"stopped at step {self.step}, a checkpoint is written: go on with --resume", self.number)

    def _note(self, number: int, frame: FrameType | None) -> None:
        if os.getpid() != self._process:  # one that loads data, forked from this one: Ctrl-C reaches it too
            return
        if self._told:
            raise Stopped("stopped at once: go on from the last checkpoint with --resume", number)
        self._told = number
        # Written past Python's buffers, which may be in use at this very moment.
        os.write(2, b"\nigva: told to stop: a checkpoint after this step, then the end; once more to end at once\n")

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        number = _largest(self._told, args.device)
        if number and not control.should_training_stop:
            self.number, self.step = number, state.global_step
            control.should_save = control.should_training_stop = True
            control.should_evaluate = False  # whoever sent the signal may not wait that long


def _largest(number: int, device: torch.device) -> int:
    """The largest of the numbers that the devices have."""
    if world_size() == 1:
        return number
    shared = torch.tensor(number, device=device)
    torch.distributed.all_reduce(shared, torch.distributed.ReduceOp.MAX)
    return int(shared)

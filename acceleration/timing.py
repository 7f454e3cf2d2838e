"""Measured time of evaluations, without making the device wait."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import torch

Mark = Callable[[str], AbstractContextManager[None]]
"""Opens a named range that a profiler shows."""

_NOTHING = nullcontext()


def unmarked(name: str) -> AbstractContextManager[None]:
    """The mark of a run that nobody profiles."""
    return _NOTHING


class Span:
    """Time between its making and ``stop``.

    On a CUDA device two events are recorded in the stream and read only when all is over: a
    processor clock would charge one evaluation's work to whichever call waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self._events: tuple[torch.cuda.Event, torch.cuda.Event] | None = None
        self._seconds = 0.0
        if device.type == "cuda":
            self._events = (
                torch.cuda.Event(enable_timing=True),
                torch.cuda.Event(enable_timing=True),
            )
            self._events[0].record(torch.cuda.current_stream(device))
        self._device = device
        self._began = time.perf_counter()

    def stop(self) -> Span:
        """End the span; may be read from now on."""
        if self._events is not None:
            self._events[1].record(torch.cuda.current_stream(self._device))
        self._seconds = time.perf_counter() - self._began
        return self

    def seconds_if_over(self) -> float | None:
        """Length in seconds, or None while the device is still at it. Never waits."""
        if self._events is not None and not self._events[1].query():
            return None
        return self.seconds()

    def seconds(self) -> float:
        """Length in seconds. On CUDA this waits for the work: read it after the run."""
        if self._events is None:
            return self._seconds
        self._events[1].synchronize()
        return self._events[0].elapsed_time(self._events[1]) / 1000

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


class Moment:
    """A moment in a device's work.

    On a CUDA device an event is recorded in the stream and read only when all is over: a
    processor clock would charge one evaluation's work to whichever call waits for it.
    """

    def __init__(self, device: torch.device) -> None:
        self._event: torch.cuda.Event | None = None
        if device.type == "cuda":
            self._event = torch.cuda.Event(enable_timing=True)
            self._event.record(torch.cuda.current_stream(device))
        self._clock = time.perf_counter()

    @property
    def reached(self) -> bool:
        """Whether the device has come so far. Never waits."""
        return self._event is None or self._event.query()

    def since(self, earlier: Moment) -> float:
        """Seconds between two moments. On CUDA this waits for the work: read it after the run."""
        if self._event is None or earlier._event is None:
            return self._clock - earlier._clock
        self._event.synchronize()
        return earlier._event.elapsed_time(self._event) / 1000


class Span:
    """Time between its making and ``stop``."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._began = self._ended = Moment(device)

    def stop(self) -> Span:
        """End the span; may be read from now on."""
        self._ended = Moment(self._device)
        return self

    def seconds_if_over(self) -> float | None:
        """Length in seconds, or None while the device is still at it. Never waits."""
        return self.seconds() if self._ended.reached else None

    def seconds(self) -> float:
        """Length in seconds. On CUDA this waits for the work: read it after the run."""
        return self._ended.since(self._began)

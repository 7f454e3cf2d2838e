"""Where in the sigma schedule an evaluation lies.

One step of a sampler may be several model evaluations (heun, dpm_2, dpmpp_sde), some of them at
sigmas between two steps, and sigmas may repeat. So the *position* of an evaluation is read from its
sigma: ``i`` at the i-th sigma of the schedule, fractions in between. It serves as time for
forecasts and, rounded down, as step for warm-up, masks and limits.
"""

from __future__ import annotations

import bisect
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

BEYOND = 1.001
"""Schedulers come so near to the largest sigma of a model that rounding may lie above it."""


def _same(a: float, b: float) -> bool:
    return abs(a - b) <= 1e-5 * max(abs(a), abs(b), 1e-8)


@dataclass(frozen=True)
class Schedule:
    """The sigmas of one sampling run, first to last (the last is the target, not evaluated)."""

    sigmas: tuple[float, ...]
    largest: float = math.inf
    """The most noise that the model was made for."""
    gain: float = 1.0
    """How many times faster the run is than its steps say, as some of them are smaller."""

    @classmethod
    def from_sigmas(
        cls, sigmas: Sequence[float], largest: float = math.inf, gain: float = 1.0
    ) -> Schedule:
        """Build from any sequence of floats (``[steps + 1]``)."""
        return cls(tuple(float(s) for s in sigmas), largest, gain)

    @property
    def rises(self) -> bool:
        """Whether noise is added somewhere, as when a picture is taken back to noise."""
        return any(ahead > here for here, ahead in itertools.pairwise(self.sigmas))

    @property
    def within(self) -> tuple[float, ...]:
        """The sigmas, none larger than the model knows."""
        return tuple(min(s, self.largest) for s in self.sigmas)

    def is_beyond(self, step: int) -> bool:
        """Whether a step begins with more noise than the model was made for."""
        return self.sigmas[step] > self.largest * BEYOND

    @property
    def steps(self) -> int:
        """Number of sampler steps."""
        return max(len(self.sigmas) - 1, 0)

    def locate(self, sigma: float, last: float | None = None) -> float:
        """Position of an evaluation at ``sigma``, given the branch's previous position.

        Schedules may rise again or repeat a sigma, so the search goes forward from ``last``: a
        repeated sigma of the schedule is a new step, the same sigma of a schedule without
        repetition is a second evaluation at the same place.
        """
        begin = 0 if last is None else int(last)
        top = max(self.steps - 1, 0)
        if last is not None and last == begin and begin < top:
            here, ahead = self.sigmas[begin], self.sigmas[begin + 1]
            if _same(sigma, here) and _same(sigma, ahead):
                return float(begin + 1)
        found = self._search(sigma, begin)
        if found is None:
            found = self._search(sigma, 0)
        if found is None:
            # Outside the schedule (churned noise) or at its target (a corrector): the nearest end.
            found = 0.0 if self.sigmas and sigma > self.sigmas[0] else float(self.steps)
        return found

    def step_of(self, position: float) -> int:
        """Index of the step that a position belongs to, ``0 … steps - 1``."""
        return min(int(position + 1e-6), max(self.steps - 1, 0))

    def target_of(self, position: float) -> float | None:
        """The sigma that the step beginning at ``position`` leads to; None between two steps."""
        step = self.step_of(position)
        return self.sigmas[step + 1] if self.steps and position == step else None

    def _search(self, sigma: float, begin: int) -> float | None:
        for i in range(begin, self.steps):
            here, ahead = self.sigmas[i], self.sigmas[i + 1]
            if _same(sigma, here):
                return float(i)
            if min(here, ahead) < sigma < max(here, ahead) and not _same(sigma, ahead):
                return i + (here - sigma) / (here - ahead)
        return None


@dataclass(frozen=True)
class Stage:
    """Steps of a run that belong together: what is remembered in one means nothing in the next.

    Parameters
    ----------
    name
        For people.
    steps
        Which steps of the schedule, rising; there may be others between them.
    full
        Whether its latents have the sampler's size.
    """

    name: str
    steps: tuple[int, ...]
    full: bool = True

    def local(self, step: int) -> int:
        """Which step of the stage a step of the schedule is; the nearest that is not earlier."""
        return min(bisect.bisect_left(self.steps, step), max(len(self.steps) - 1, 0))


class SigmaReading:
    """The current sigma ``[B]``, on its way from the device.

    The schedule is known to the processor, but which of its sigmas an evaluation has, or which
    between two of them, only the sampler knows, and it works on the device: guessing would be wrong
    for every sampler with more than one evaluation a step. So the value is copied without waiting
    before the first blocks are queued, and waited for after: the device then has the first blocks
    to work on, and the policy's reading of the change is the only wait that lets it run dry.
    """

    def __init__(self, sigma: torch.Tensor) -> None:
        self.source = sigma
        self._value = sigma.flatten()[:1]
        self._arrived: torch.cuda.Event | None = None
        if sigma.device.type != "cuda":
            return
        try:
            copy = torch.empty_like(self._value, device="cpu", pin_memory=True)
        except RuntimeError:
            return  # no more memory can be pinned: the value is read from the device
        self._value = copy.copy_(self._value, non_blocking=True)
        self._arrived = torch.cuda.Event()
        self._arrived.record(torch.cuda.current_stream(sigma.device))

    def value(self) -> float:
        """The sigma; waits until it has arrived."""
        if self._arrived is not None:
            self._arrived.synchronize()
        return float(self._value[0])

"""Which evaluations of a run to spend in full, when their number is given.

They are spread by a density over the schedule: dense at the start, where the picture is laid out,
and where a step takes away much noise. A surprising change of the first blocks moves them during
the run.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

# The density of computed evaluations was tuned on the demo models, with 8 pictures a trial, for 4
# to 21 evaluations of 20, 28 and 50, with corrector; it does as well without. Neighbouring values
# differ by about 1 dB, which is what two sets of seeds do.

START, START_WIDTH = 6.0, 0.2
"""Extra density at the start, and over which share of the noise it falls to 1/e."""

END, END_WIDTH = 1.0, 0.3
"""The same for the end, where fine detail appears."""

STRETCH = 0.65
"""How much the width of a step in noise counts: 1 spreads evaluations over noise, 0 over steps. On
the video demo model, whose schedule is shifted by 8, 0 loses to fewer steps and 1 is worse too."""

LAST_WORTH = 0.33
"""The last step gets one for sure where the density gives it this share of an evaluation."""

TAIL = 0.15
"""Intervals between the last evaluation and the end, where the last step is not kept: after a long
tail the picture would be a forecast over many steps, which nothing corrects."""

TAIL_TO_LAST, FEW = 0.4, 1 / 3
"""Intervals before the last step, where that is kept and less than this share is computed: two
evaluations in a row would be a waste there."""

SURPRISE = 3.0
"""A change more than this many times the typical one brings the next evaluation nearer. Usual ones
do not, as the first block's change is a noisy guide: following it lost up to 5 dB on the demo
models, and so did waiting where it is small (heun evaluates every sigma twice)."""

MOST_WEIGHT = 1.5
"""A surprising change weighs an evaluation by at most this factor."""

TYPICAL_OF = 4
"""How many changes make the typical one that the next is compared with."""

EVALUATIONS_PER_STEP = {
    "heun": 2,
    "heunpp2": 3,
    "dpm_2": 2,
    "dpm_2_ancestral": 2,
    "dpmpp_2s_ancestral": 2,
    "dpmpp_2s_ancestral_cfg_pp": 2,
    "dpmpp_sde": 2,
    "dpmpp_sde_gpu": 2,
    "seeds_2": 2,
    "seeds_3": 3,
    "exp_heun_2_x0": 2,
    "exp_heun_2_x0_sde": 2,
}
"""Of the host's samplers that evaluate more than once a step (the last step excepted); a guess
until the run has shown it."""


def density(fraction: float) -> float:
    """Relative density of computed evaluations at a place of the schedule, 0 to 1."""
    start = START * math.exp(-fraction / START_WIDTH)
    return 1.0 + start + END * math.exp(-(1.0 - fraction) / END_WIDTH)


def densities(sigmas: Sequence[float]) -> tuple[float, ...]:
    """Density of computed evaluations for every step of a schedule.

    Parameters
    ----------
    sigmas
        ``[steps + 1]``. Those of flow models lie between 0 and 1; larger ones are brought there by
        ``σ / (1 + σ)``, the share of noise in the sample.
    """
    large = max(sigmas, default=0.0) > 1.5
    noise = [s / (1 + s) if large else s for s in sigmas]
    steps = max(len(noise) - 1, 0)
    span = (noise[0] - noise[-1]) if steps else 0.0
    if span <= 0:
        return tuple(density(i / max(steps - 1, 1)) for i in range(steps))
    found = []
    for i in range(steps):
        width = max(abs(noise[i] - noise[i + 1]) / span * steps, 1e-3)
        place = min(max((noise[0] - noise[i]) / span * steps / max(steps - 1, 1), 0.0), 1.0)
        found.append(density(place) * width**STRETCH)
    return tuple(found)


@dataclass
class EvaluationPlan:
    """Spends a share of one branch's evaluations; told of each in order.

    Parameters
    ----------
    density
        Of every step of the schedule, see ``densities``.
    share
        Of the evaluations that are computed, 0 to 1.
    sampler
        Name of the sampler function, for how many evaluations a step has.
    first
        The step at which this branch begins; what lies before is not its own.
    """

    density: Sequence[float]
    share: float
    sampler: str = ""
    first: int = 0
    computed: int = 0
    seen: int = 0
    _passed: list[float] = field(default_factory=list)
    """Densities of the evaluations since the last computed one."""
    _step: int = -1
    _in_step: int = 0
    _changes: deque[float] = field(default_factory=lambda: deque(maxlen=TYPICAL_OF))

    def __post_init__(self) -> None:
        self._per_step = EVALUATIONS_PER_STEP.get(self.sampler, 1)
        self._last = len(self.density) - 1
        # The last step decides fine detail, the more so the wider it is.
        worth = self.share * (self._last + 1) * self.density[-1] / sum(self.density)
        self._keeps_last = worth >= LAST_WORTH
        self._tail = TAIL
        if self._keeps_last:
            self._tail = TAIL_TO_LAST if self.share < FEW else 0.0

    def _left(self, step: int) -> list[int]:
        """Steps of the evaluations to come, this one included."""
        here = max(self._per_step - self._in_step, 0) if step < self._last else 0
        # A solver of higher order takes its last step, to sigma 0, in one evaluation.
        inner = [s for s in range(step + 1, self._last) for _ in range(self._per_step)]
        return [step] * (here + 1) + inner + [self._last] * (step < self._last)

    def _note(self, step: int) -> None:
        if step != self._step:
            # The first step may be met for its beginning only (a corrector lies in the next one).
            if self._step > self.first:
                self._per_step = self._in_step
            self._step, self._in_step = step, 0
        self._in_step += 1
        self.seen += 1

    def _weight(self, change: float | None) -> float:
        """How much more than lately the input changed, where that is a surprise."""
        if change is None or not math.isfinite(change):
            return 1.0
        typical = sum(self._changes) / len(self._changes) if self._changes else change
        self._changes.append(change)
        if typical <= 0 or change <= typical * SURPRISE:
            return 1.0
        return min(math.sqrt(change / typical / SURPRISE), MOST_WEIGHT)

    def wants(self, step: int, change: float | None) -> bool:
        """Whether to compute the evaluation at hand.

        ``change`` is that of the first blocks since the evaluation before, relative, or None.
        """
        self._note(step)
        self._passed.append(self.density[step] * self._weight(change))
        coming = self._left(step)
        # A whole number: a rest that is never spent would draw out the tail.
        budget = round(self.share * (self.seen - 1 + len(coming))) - self.computed
        if budget >= len(coming) or (self.seen == 1 and budget >= 1):
            return True
        ahead = [self.density[s] for s in coming[1 : -1 if self._keeps_last else None]]
        free = budget - self._keeps_last
        if free < 1:
            return False
        unit = _level([*self._passed, *ahead], free + self._tail)
        filled = sum(min(1.0, one / unit) for one in self._passed)
        # To the nearest evaluation, not to the one after the interval is full.
        return filled + min(1.0, self._passed[-1] / unit) / 2 >= 1.0

    def spent(self) -> None:
        """The evaluation at hand was computed, wanted or not."""
        self.computed += 1
        self._passed.clear()


def _level(densities: list[float], total: float) -> float:
    """The unit u with ``sum(min(1, d / u)) = total``: no evaluation can be computed twice."""
    low, high = 0.0, sum(densities) / total
    for _ in range(30):
        middle = (low + high) / 2
        if sum(min(1.0, one / middle) for one in densities) > total:
            low = middle
        else:
            high = middle
    return high

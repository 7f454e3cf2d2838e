"""Which evaluations of a run to spend in full, when their number is given.

The schedule is measured in a length of its own: a step is long where it takes away much of the
noise that is there, and where the picture is laid out, in the strongest noise. A skipped evaluation
costs the length of its step, the more the farther it lies from the computed one that its forecast
starts from. The plan is the choice that costs least, found by dynamic programming. Where a sampler
evaluates otherwise than was foreseen, the rest is planned anew.

The measured change of the first blocks has no say: following it was worse on the demo models, and
so was waiting where it is small (heun evaluates every sigma twice). Following only changes of three
times the usual one made no difference on the whole.
"""

from __future__ import annotations

import itertools
import math
import operator
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

# These were tuned on both demo models, with 2 to 4 pictures a trial, for 4 to 32 evaluations of 20,
# 28 and 50, with corrector. Neighboring values differ by about 1 dB, as two sets of seeds do.

STRETCH = 0.8
"""The length of a step is the share of the noise that it takes away, to this power."""

START, START_WIDTH = 16.0, 0.2
"""How much longer steps are in pure noise, and with how much less noise that falls to 1/e."""

POWER = 1.5
"""By which power of its distance a skipped evaluation costs more: holding the last residual is off
by the distance, a forecast along the last difference by its square."""

UNCORRECTED = 3.0
"""How much more it costs to skip right before the last evaluation or after the last computed one:
that goes straight to the result, and nothing is given back any more."""

LEAST = 1e-3
"""Least share of the noise that a step is taken to remove."""

NEVER = 1e6
"""Length of the way where no evaluation was computed yet."""

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


def step_lengths(sigmas: Sequence[float]) -> tuple[float, ...]:
    """Length of every step of a schedule.

    The step from σ to τ leads to ``τ/σ x + (1 - τ/σ) D`` with D the denoised result, so an error of
    D counts by ``1 - τ/σ``; and the earlier it is made, the more of the picture follows it.

    Parameters
    ----------
    sigmas
        ``[steps + 1]``. Those of flow models lie between 0 and 1; larger ones are brought there by
        ``σ / (1 + σ)``, the share of noise in the sample.
    """
    large = max(sigmas, default=0.0) > 1.5
    noise = [s / (1 + s) if large else s for s in sigmas]
    found = []
    for sigma, target in itertools.pairwise(noise):
        taken = abs(sigma - target) / max(sigma, target, LEAST)
        start = START * math.exp(-(1.0 - sigma) / START_WIDTH)
        found.append((1.0 + start) * max(taken, LEAST) ** STRETCH)
    return tuple(found)


@dataclass
class EvaluationPlan:
    """Spends a share of one branch's evaluations; told of each in order.

    Parameters
    ----------
    lengths
        Of every step of the schedule, see ``step_lengths``.
    share
        Of the evaluations that are computed, 0 to 1.
    sampler
        Name of the sampler function, for how many evaluations a step has.
    first
        The step at which this branch begins; what lies before is not its own.
    """

    lengths: Sequence[float]
    share: float
    sampler: str = ""
    first: int = 0
    computed: int = 0
    seen: int = 0
    _since: float = NEVER
    """Length of the way since the last computed evaluation."""
    _here: float = 0.0
    """Length of the evaluation at hand."""
    _step: int = -1
    _in_step: int = 0
    _ahead: deque[bool] = field(default_factory=deque)
    """What is planned for the evaluations to come."""
    _foreseen: list[float] = field(default_factory=list)
    """Their lengths."""

    def __post_init__(self) -> None:
        self._per_step = EVALUATIONS_PER_STEP.get(self.sampler, 1)
        # A solver of higher order takes its last step, to sigma 0, in one evaluation.
        self._in_last = 1

    def wants(self, step: int) -> bool:
        """Whether to compute the evaluation at hand."""
        self._note(step)
        coming = self._coming(step)
        budget = round(self.share * (self.seen - 1 + len(coming))) - self.computed
        if self._foreseen != coming or sum(self._ahead) != budget:
            self._ahead = deque(cheapest(self._since, coming, budget))
        self._here, *self._foreseen = coming
        self._since += self._here
        return self._ahead.popleft()

    def spent(self) -> None:
        """The evaluation at hand was computed, wanted or not."""
        self.computed += 1
        self._since = self._here

    def _note(self, step: int) -> None:
        if step != self._step:
            # The first step may be met for its beginning only (a corrector lies in the next one).
            if self._step > self.first:
                self._per_step = self._in_step
            elif 0 < self._in_step < self._per_step:
                # What ends a step, as heun does, lies at the beginning of the next one.
                self._in_last = self._per_step
            self._step, self._in_step = step, 0
        self._in_step += 1
        self.seen += 1

    def _coming(self, step: int) -> list[float]:
        """Lengths of the evaluations to come, this one included."""
        counts = [self._per_step] * (len(self.lengths) - 1) + [self._in_last]
        here = max(counts[step] - self._in_step, 0) + 1
        later = range(step + 1, len(counts))
        steps = [step] * here + [s for s in later for _ in range(counts[s])]
        return [self.lengths[s] / counts[s] for s in steps]


def cheapest(since: float, lengths: Sequence[float], count: int) -> list[bool]:
    """Which evaluations to compute so that skipping the others costs least.

    Parameters
    ----------
    since
        Length of the way from the last computed evaluation to the first of these.
    lengths
        Of the evaluations.
    count
        How many of them are computed.

    Notes
    -----
    ``least[i]`` is the least cost of what comes after evaluation i, if that is computed and k more
    are; k grows from 0 to ``count``. Gaps of more than a few times the usual one are not looked at.
    """
    total = len(lengths)
    if count <= 0 or count >= total:
        return [count > 0] * total
    places = list(itertools.accumulate(lengths, initial=0.0))
    widest = 4 * total // count + 3

    def costs(origin: float, first: int, most: int) -> list[float]:
        """Of skipping the evaluations from ``first`` up to each that may be computed next."""
        skipped = range(first, min(first + most, total) - 1)
        each = [lengths[i] * (places[i] - origin) ** POWER for i in skipped]
        found = list(itertools.accumulate(each, initial=0.0))
        if first + most >= total:
            found[-1] *= UNCORRECTED
        return found

    def nearest(gaps: Sequence[float], first: int, least: Sequence[float]) -> tuple[float, int]:
        """The least cost, and which evaluation is computed next for it."""
        sums = list(map(operator.add, gaps, least[first : first + len(gaps)]))
        best = min(sums)
        return best, first + sums.index(best)

    gaps = [costs(places[i], i + 1, widest) for i in range(total - 1)]
    least = [
        UNCORRECTED
        * sum(lengths[j] * (places[j] - places[i]) ** POWER for j in range(i + 1, total))
        for i in range(total)
    ]
    choices: list[list[int]] = []
    for more in range(1, count):
        # Where an evaluation cannot be followed by as many more, or need not be looked at.
        here, chosen = [math.inf] * total, [total] * total
        for i in range(count - more - 1, total - more):
            here[i], chosen[i] = nearest(gaps[i], i + 1, least)
        least = here
        choices.append(chosen)
    _, index = nearest(costs(-since, 0, widest), 0, least)
    plan = [False] * total
    plan[index] = True
    for chosen in reversed(choices):
        index = chosen[index]
        plan[index] = True
    return plan

"""Which evaluations of a run to spend in full, when their number is given.

The schedule is measured in a length of its own: a step is long where the picture is laid out, where
detail appears, and where much noise is taken away. A skipped evaluation costs the length of its
step, the more the farther it lies from the computed one that its forecast starts from. The plan is
the choice that costs least, found by dynamic programming. A surprising change of the first blocks
makes the way since the last computed evaluation longer, and the rest is planned anew.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

# These were tuned on both demo models, with 2 to 4 pictures a trial, for 4 to 32 evaluations of 20,
# 28 and 50, with corrector. Neighboring values differ by about 1 dB, as two sets of seeds do.

START, START_WIDTH = 6.0, 0.2
"""Extra length at the start, and over which share of the noise it falls to 1/e."""

END, END_WIDTH = 1.0, 0.3
"""The same for the end."""

STRETCH = 0.65
"""How much the width of a step in noise counts: 1 measures noise, 0 steps. On the video demo model,
whose schedule is shifted by 8, 0 loses to fewer steps and 1 is worse too."""

POWER = 2.0
"""By which power of its distance a skipped evaluation costs more: a forecast along the last
difference is off by the square."""

UNCORRECTED = 2.0
"""How much more it costs to skip right before the last evaluation: that one goes straight to the
result, so nothing is given back any more."""

TAIL = 4.0
"""How much more it costs to skip after the last computed evaluation: the result is a forecast."""

REPEATED = 0.1
"""Share of a step's length of a first evaluation that only ends the step before, at the sigma that
the second one has again: where one of the two is computed, the other is nearly known."""

SURPRISE = 3.0
"""A change more than this many times the typical one brings the next evaluation nearer. Usual ones
do not, as the first block's change is a noisy guide: following it lost up to 5 dB on the demo
models, and so did waiting where it is small (heun evaluates every sigma twice)."""

MOST_LONGER = 1.5
"""A surprising change makes the way longer by at most this factor."""

TYPICAL_OF = 4
"""How many changes make the typical one that the next is compared with."""

NEVER = 1e6
"""Length of the way where no evaluation was computed yet."""

_TWICE = (REPEATED, 1.0 - REPEATED)
_HALVES = (0.5, 0.5)
_THIRDS = (1 / 3, 1 / 3, 1 / 3)

EVALUATIONS = {
    "heun": _TWICE,
    "exp_heun_2_x0": _TWICE,
    "exp_heun_2_x0_sde": _TWICE,
    "heunpp2": _THIRDS,
    "dpm_2": _HALVES,
    "dpm_2_ancestral": _HALVES,
    "dpmpp_2s_ancestral": _HALVES,
    "dpmpp_2s_ancestral_cfg_pp": _HALVES,
    "dpmpp_sde": _HALVES,
    "dpmpp_sde_gpu": _HALVES,
    "seeds_2": _HALVES,
    "seeds_3": _THIRDS,
}
"""The evaluations of a step, by their shares of its length, of the host's samplers that have more
than one. Others are taken to have one until the run shows another number."""


def density(fraction: float) -> float:
    """Length of a step of even width at a place of the schedule, 0 to 1."""
    start = START * math.exp(-fraction / START_WIDTH)
    return 1.0 + start + END * math.exp(-(1.0 - fraction) / END_WIDTH)


def step_lengths(sigmas: Sequence[float]) -> tuple[float, ...]:
    """Length of every step of a schedule.

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
    _changes: deque[float] = field(default_factory=lambda: deque(maxlen=TYPICAL_OF))

    def __post_init__(self) -> None:
        self._shares: tuple[float, ...] = EVALUATIONS.get(self.sampler, (1.0,))

    def wants(self, step: int, change: float | None) -> bool:
        """Whether to compute the evaluation at hand.

        ``change`` is that of the first blocks since the evaluation before, relative, or None.
        """
        self._note(step)
        longer = self._surprise(change)
        self._since *= longer
        coming = self._coming(step)
        budget = round(self.share * (self.seen - 1 + len(coming))) - self.computed
        if longer > 1.0 or len(self._ahead) != len(coming) or sum(self._ahead) != budget:
            self._ahead = deque(cheapest(self._since, coming, budget))
        self._here = coming[0]
        self._since += self._here
        return self._ahead.popleft()

    def spent(self) -> None:
        """The evaluation at hand was computed, wanted or not."""
        self.computed += 1
        self._since = self._here

    def _note(self, step: int) -> None:
        if step != self._step:
            # The first step may be met for its beginning only (a corrector lies in the next one).
            if self._step > self.first and self.sampler not in EVALUATIONS:
                self._shares = (1.0 / self._in_step,) * self._in_step
            self._step, self._in_step = step, 0
        self._in_step += 1
        self.seen += 1

    def _coming(self, step: int) -> list[float]:
        """Lengths of the evaluations to come, this one included."""
        here = self._evaluations_of(step)[self._in_step - 1 :] or [0.0]
        later = range(step + 1, len(self.lengths))
        return here + [length for s in later for length in self._evaluations_of(s)]

    def _evaluations_of(self, step: int) -> list[float]:
        whole, twice = self.lengths[step], self._shares is _TWICE
        # The last step, to sigma 0, takes one evaluation; the first one has none to end before it.
        if step == (0 if twice else len(self.lengths) - 1):
            return [whole]
        return [whole * share for share in self._shares]

    def _surprise(self, change: float | None) -> float:
        """How much longer the way is than the schedule says: 1 unless the change is a surprise."""
        if change is None or not math.isfinite(change):
            return 1.0
        typical = sum(self._changes) / len(self._changes) if self._changes else change
        self._changes.append(change)
        if typical <= 0 or change <= typical * SURPRISE:
            return 1.0
        return min(math.sqrt(change / typical / SURPRISE), MOST_LONGER)


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
    places = [0.0]
    for length in lengths:
        places.append(places[-1] + length)
    widest = 4 * total // count + 3

    def costs(origin: float, first: int, last: int) -> list[float]:
        """Of skipping the evaluations from ``first`` up to each place before ``last``."""
        found = [0.0]
        for i in range(first, last - 1):
            found.append(found[-1] + lengths[i] * (places[i] - origin) ** POWER)
        return found

    def nearest(origin: float, first: int, least: Sequence[float]) -> tuple[float, int]:
        """The least cost, and which evaluation is computed next for it."""
        found = costs(origin, first, min(first + widest, total))
        if first + len(found) == total:
            found[-1] *= UNCORRECTED
        return min((cost + least[first + i], first + i) for i, cost in enumerate(found))

    least = [TAIL * costs(places[i], i + 1, total + 1)[-1] for i in range(total)]
    choices: list[list[int]] = []
    for more in range(1, count):
        # Where an evaluation cannot be followed by as many more, or need not be looked at.
        here, chosen = [math.inf] * total, [total] * total
        for i in range(count - more - 1, total - more):
            here[i], chosen[i] = nearest(places[i], i + 1, least)
        least = here
        choices.append(chosen)
    _, index = nearest(-since, 0, least)
    plan = [False] * total
    plan[index] = True
    for chosen in reversed(choices):
        index = chosen[index]
        plan[index] = True
    return plan

"""A number of evaluations, spent where they count: what a target speed-up asks for.

No threshold: the target says how many evaluations may be computed, and the plan spreads them over
the schedule.
"""

from __future__ import annotations

import math
from typing import Protocol

import torch

from ..errors import AccelerationError
from ..families import Structure
from ..report import RunReport
from ..schedule import Schedule
from ..settings.caching import CachingSettings
from .base import FAST_ALREADY, FEWEST_STEPS, Decision, Policy, RunInfo, Seen, adds_noise
from .cost import FIRST_BLOCKS, Cost
from .plan import EvaluationPlan, step_lengths

FEWEST_COMPUTED = 6
"""A preset computes at least as many steps. Of a model that was distilled to eight steps, six
keep the picture and five are hardly better than five plain steps (``benchmarks/few_steps.py``)."""
USUAL_STEPS = 28
"""From as many steps on a preset plans for its speed-up."""
FEWER_STEPS = 0.25
"""With fewer steps it plans for less: what is won shrinks with this power of their number. Steps
lie farther apart then, and skipping the same share loses more."""

MOST_RISING = 1.5
"""A run that adds noise is planned for no more: plans know falling schedules only. So much is far
nearer than plain sampling with as many steps (``benchmarks/schedules.py``), twice the speed was
not."""

PICTURES_SUFFER = 3.0
"""Above so many times the speed a target costs more than most pictures bear
(``benchmarks/target.py``)."""


class Plannable(Protocol):
    """What a plan is made of."""

    @property
    def schedule(self) -> Schedule: ...
    @property
    def cost(self) -> Cost:
        """What computed and skipped evaluations cost."""
        ...


class PlannedPolicy(Policy):
    """Decisions for one branch."""

    first_blocks = FIRST_BLOCKS

    def __init__(self, info: RunInfo, share: float, advice: str) -> None:
        self.promised = info.cost.speedup(share)
        self.computed_cost = info.cost.computed if share < 1.0 else 1.0
        self._info = info
        self._share = share
        self._advice = advice
        self._plan: EvaluationPlan | None = None
        self._computed_step: int | None = None
        # No plan leaves gaps as long as this; only branches that pause do.
        self.max_age: float = max(6.0, 4.0 / share)

    def decide(self, step: int, seen: Seen, blocked: str | None) -> Decision:
        own = self._info.own_steps
        if own and self._info.schedule.is_beyond(own[step]):
            return Decision(False, "beyond the model's noise", seen.since_last)
        if self._plan is None:
            whole = step_lengths(self._info.schedule.within)
            lengths = [whole[each] for each in own]
            self._plan = EvaluationPlan(lengths, self._share, self._info.sampler, step)
        change = seen.since_last
        wanted = self._plan.wants(step)
        if blocked is not None or wanted:
            return Decision(False, blocked or "planned", change)
        if self._computed_step is not None and step - self._computed_step > self.max_age:
            return Decision(False, "residual too old", change)
        return Decision(True, "planned", change)

    def computed(self, step: int, signal: torch.Tensor, output: torch.Tensor | None) -> None:
        self._computed_step = step
        if self._plan is not None:
            self._plan.spent()

    def advise(self, report: RunReport) -> str | None:
        return self._advice or None

    def explain(self, report: RunReport) -> str | None:
        if self._share >= 1.0:
            return "the plan computes every evaluation"
        return None


class Planned:
    """The technique behind Performance Mode's approximation.

    Parameters
    ----------
    speedup
        How many times faster the run shall be than with every evaluation computed.
    label
        What the user chose, such as ``"balanced"``, for the report.
    strict
        This speed-up with any number of steps; else short schedules are planned to win less, and
        the shortest run uncached.
    """

    name = "Performance Mode"
    title = "Performance Mode"
    changes_pictures = True

    def __init__(
        self, speedup: float, label: str, strict: bool = False, residual_device: str = "auto"
    ) -> None:
        if not 1.0 <= speedup < math.inf:
            raise AccelerationError(
                f"target_speedup is {speedup:g}: it must be at least 1 (nothing is skipped); 1.5 "
                "to 3 are usual."
            )
        self.speedup = speedup
        self.label = label
        self.strict = strict
        self.settings = CachingSettings(
            calibrator="blend", corrector=True, residual_device=residual_device
        )

    def check(self, structure: Structure) -> None:
        """Every known family can be planned."""

    def _too_short(self, info: Plannable) -> bool:
        return not self.strict and info.schedule.steps < FEWEST_STEPS

    def speedup_at(self, steps: int) -> float:
        """The speed-up that is planned for in a run of so many steps of one size."""
        shorter = 1.0 if self.strict else min(steps / USUAL_STEPS, 1.0)
        return 1.0 + (self.speedup - 1.0) * shorter**FEWER_STEPS

    def _speedup(self, info: Plannable) -> float:
        planned = self.speedup_at(info.schedule.steps)
        if self.strict:
            # The speed of the whole run was asked for.
            planned = max(planned / info.schedule.gain, 1.0)
        return min(planned, MOST_RISING) if info.schedule.rises else planned

    def share(self, info: Plannable) -> float:
        """Share of the evaluations that are planned to be computed."""
        if self._too_short(info):
            return 1.0
        share = info.cost.share(self._speedup(info))
        fewest = 2 if self.strict else FEWEST_COMPUTED
        return min(max(share, fewest / max(info.schedule.steps, 1)), 1.0)

    def notices(self, info: RunInfo) -> list[str]:
        steps = info.schedule.steps
        if self._too_short(info):
            return []
        share = self.share(info)
        found = [
            f"{self.label} plans to compute {share * steps:.1f} of {steps} steps (a skipped one "
            f"costs {info.cost.skipped:.0%} of a full one, {info.cost.source})"
        ]
        gain = info.schedule.gain
        if self.strict and gain > 1.0:
            found.append(
                f"asked {self.speedup:.3g} times: smaller pictures give {gain:.2g}, caching is "
                f"planned for {self._speedup(info):.2g}"
            )
        beyond = sum(map(info.schedule.is_beyond, range(steps)))
        if beyond:
            found.append(
                f"{beyond} of {steps} steps begin with more noise than the model was made for: "
                "these are computed"
            )
        return found

    def advice(self, info: RunInfo) -> str:
        """What this run cannot give, and what would; empty where there is nothing to say."""
        steps, sampler = info.schedule.steps, info.sampler
        if self._too_short(info):
            return f"{steps} steps are too few to skip any: {FAST_ALREADY}"
        found = []
        share, speedup = self.share(info), self._speedup(info)
        if share > info.cost.share(speedup):
            found.append(
                f"{self.label} asks for {speedup:.3g} times, and {steps} steps of this model give "
                f"{info.cost.speedup(share):.2g} at most"
            )
        if self.strict and speedup > PICTURES_SUFFER:
            found.append(
                f"pictures suffer above {PICTURES_SUFFER:g} times: a target_speedup of 2 to 3 "
                "keeps them nearer"
            )
        if info.schedule.rises and speedup < self.speedup_at(steps):
            found.append(
                f"this schedule adds noise, which plans do not know yet: {speedup:g} times is "
                f"planned instead of {self.speedup_at(steps):.3g}, and a schedule that only falls "
                "gains more"
            )
        if adds_noise(sampler):
            found.append(
                f"the sampler {sampler} adds fresh noise in every step, so forecasts are farther "
                "off: euler, heun, dpmpp_2m or res_multistep keep the picture nearer"
            )
        return "; ".join(found)

    def open(self, info: RunInfo) -> PlannedPolicy:
        return PlannedPolicy(info, self.share(info), self.advice(info))

    def describe(self) -> dict[str, object]:
        return {
            "approximation": self.label,
            "target_speedup": self.speedup,
            "calibrator": self.settings.calibrator,
            "corrector": self.settings.corrector,
            "residual_device": self.settings.residual_device,
        }

"""A number of evaluations, spent where they count: what a target speed-up asks for.

No threshold: the target says how many evaluations may be computed, the plan spreads them over the
schedule, and the measured change of the first blocks moves them while the run goes on.
"""

from __future__ import annotations

import math

import torch

from ..errors import AccelerationError
from ..evaluation_plan import EvaluationPlan, step_lengths
from ..families import Structure, Tap
from ..report import RunReport
from ..signals import thinned
from . import Decision, RunInfo
from .cost import FIRST_BLOCKS
from .recording import relative_change

FEWEST_STEPS = 8
"""Below this a preset skips nothing: a few-step model changes too much from step to step."""
FEWEST_COMPUTED = 5
"""A preset computes at least as many steps: below, fewer steps are about as good."""
USUAL_STEPS = 28
"""From as many steps on a preset plans for its speed-up."""
FEWER_STEPS = 0.25
"""With fewer steps it plans for less: what is won shrinks with this power of their number. Steps
lie farther apart then, and skipping the same share loses more."""


def share_for(speedup: float, cost: float) -> float:
    """Share of the evaluations to compute, so that the run is ``speedup`` times faster.

    ``cost`` is that of a skipped evaluation. 0 when not even skipping everything would do.
    """
    return min(max((1.0 / speedup - cost) / (1.0 - cost), 0.0), 1.0) if cost < 1.0 else 1.0


class PlannedPolicy:
    """Decisions of one run on one device."""

    first_blocks = FIRST_BLOCKS
    last_blocks = 0
    wants_output = False
    tap: Tap | None = None

    def __init__(self, info: RunInfo, share: float) -> None:
        self._info = info
        self._share = share
        self._plans: dict[str, EvaluationPlan] = {}
        self._signals: dict[str, torch.Tensor] = {}
        self._computed_step: dict[str, int] = {}
        # No plan leaves gaps as long as this; only branches that pause do.
        self.max_age: float = max(6.0, 4.0 / share)

    def decide(self, branch: str, step: int, signal: torch.Tensor, blocked: str | None) -> Decision:
        plan = self._plans.get(branch)
        if plan is None:
            lengths = step_lengths(self._info.schedule.sigmas)
            plan = EvaluationPlan(lengths, self._share, self._info.sampler, step)
            self._plans[branch] = plan
        change = self._change(branch, signal)
        wanted = plan.wants(step, change)
        if blocked is not None or wanted:
            return Decision(False, blocked or "planned", change)
        if step - self._computed_step.get(branch, step) > self.max_age:
            return Decision(False, "residual too old", change)
        return Decision(True, "planned", change)

    def _change(self, branch: str, signal: torch.Tensor) -> float | None:
        """``mean|r - r'| / mean|r'|`` against the evaluation before, skipped or not."""
        before, signal = self._signals.get(branch), thinned(signal)
        self._signals[branch] = signal
        if before is None or before.shape != signal.shape:
            return None
        change = relative_change(signal, before)
        return change if math.isfinite(change) else None

    def computed(
        self, branch: str, step: int, signal: torch.Tensor, output: torch.Tensor | None
    ) -> None:
        self._computed_step[branch] = step
        if branch in self._plans:
            self._plans[branch].spent()

    def forget(self, branch: str) -> None:
        for held in (self._plans, self._signals, self._computed_step):
            held.pop(branch, None)

    def tensors(self) -> list[torch.Tensor]:
        return list(self._signals.values())

    def explain(self, report: RunReport) -> str | None:
        if self._share >= 1.0:
            return "the plan computes every evaluation"
        return None

    def close(self) -> None:
        for held in (self._plans, self._signals, self._computed_step):
            held.clear()


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
    calibrator = "blend"
    taylorseer_order = 1
    corrector = True
    start_percent = 0.0
    end_percent = 1.0

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
        self.residual_device = residual_device

    def check(self, structure: Structure) -> None:
        """Every known family can be planned."""

    def _too_short(self, info: RunInfo) -> bool:
        return not self.strict and info.schedule.steps < FEWEST_STEPS

    def speedup_at(self, steps: int) -> float:
        """The speed-up that is planned for in a run of so many steps."""
        shorter = 1.0 if self.strict else min(steps / USUAL_STEPS, 1.0)
        return 1.0 + (self.speedup - 1.0) * shorter**FEWER_STEPS

    def _share(self, info: RunInfo) -> float:
        if self._too_short(info):
            return 1.0
        share = share_for(self.speedup_at(info.schedule.steps), info.skipped_cost)
        fewest = 2 if self.strict else FEWEST_COMPUTED
        return min(max(share, fewest / max(info.schedule.steps, 1)), 1.0)

    def notices(self, info: RunInfo) -> list[str]:
        steps = info.schedule.steps
        if self._too_short(info):
            return [
                f"{steps} steps are too few to skip any without harm, so {self.label} computes "
                "everything; a few-step model is fast already"
            ]
        cost, share, speedup = info.skipped_cost, self._share(info), self.speedup_at(steps)
        found = [
            f"{self.label} plans to compute {share * steps:.1f} of {steps} steps for about "
            f"{speedup:.3g} times the speed (a skipped one costs {cost:.0%} of a computed one)"
        ]
        if share > share_for(speedup, cost):
            found.append(
                f"{speedup:.3g} times is more than {steps} steps of this model give; at least "
                f"{share * steps:.0f} are computed"
            )
        return found

    def open(self, info: RunInfo) -> PlannedPolicy:
        return PlannedPolicy(info, self._share(info))

    def describe(self) -> dict[str, object]:
        return {
            "approximation": self.label,
            "target_speedup": self.speedup,
            "calibrator": self.calibrator,
            "corrector": self.corrector,
            "residual_device": self.residual_device,
        }

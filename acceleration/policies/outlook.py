"""What each preset of Performance Mode would plan, before anything is sampled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..performance.settings import PRESET_SPEEDUPS
from ..schedule import Schedule
from .cost import Cost
from .planned import Plannable, Planned

USUAL_COST = Cost.usual(0.03)
"""Where the model is not known yet. One block holds 3 % of the parameters of FLUX.1-dev, 2 % of
Qwen-Image's, 2.5 % of Wan 2.1 14B's."""


@dataclass(frozen=True)
class Guess:
    """A run of which only the number of its steps is known."""

    schedule: Schedule
    cost: Cost = USUAL_COST

    @classmethod
    def of_steps(cls, steps: int, cost: Cost = USUAL_COST) -> Guess:
        """A run that takes the noise away evenly."""
        sigmas = [1 - step / max(steps, 1) for step in range(steps + 1)]
        return cls(Schedule.from_sigmas(sigmas), cost)


def outlook(run: Plannable) -> list[dict[str, Any]]:
    """A row for each preset: ``preset``, ``computed`` steps of ``steps``, and ``speedup``.

    The speed-up is that of the plan, by what evaluations of the model cost.
    """
    steps = run.schedule.steps
    rows = [{"preset": "off", "computed": float(steps), "steps": steps, "speedup": 1.0}]
    for preset, speedup in PRESET_SPEEDUPS.items():
        share = Planned(speedup, preset).share(run)
        rows.append(
            {
                "preset": preset,
                "computed": share * steps,
                "steps": steps,
                "speedup": run.cost.speedup(share),
            }
        )
    return rows

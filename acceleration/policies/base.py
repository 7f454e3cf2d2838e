"""When to skip: one file a technique, all behind one small interface."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from ..families import Structure, Tap
from ..forecasts.corrector import SAMPLERS
from ..report import RunReport
from ..schedule import Schedule, Stage
from ..settings.caching import CachingSettings
from .cost import Cost, cost_of


@dataclass(frozen=True)
class Decision:
    """Outcome for one evaluation of one branch."""

    reuse: bool
    reason: str
    """Short phrase for the report: "warm-up", "mask", "below threshold", …"""
    diff: float | None = None
    """Measured relative change, None where none was needed."""
    threshold: float | None = None
    """What ``accumulated``, or else ``diff``, is compared with."""
    accumulated: float | None = None
    """Sum of estimated changes since the last computed evaluation, where a technique sums."""


@dataclass(frozen=True)
class RunInfo:
    """What a policy may know of the run before it begins."""

    schedule: Schedule
    structure: Structure
    sampler: str
    network: Any
    """The transformer itself, to be looked at only."""
    stage: Stage | None = None
    """The part of the run that is meant; None for all of it. Policies count its steps only."""
    device: str = "cpu"
    """Kind of device that it runs on."""
    branches: int = 1
    """How many are expected: two with a negative prompt."""

    @property
    def own_steps(self) -> tuple[int, ...]:
        """Which steps of the schedule the policy decides for, in the order of its counting."""
        return self.stage.steps if self.stage is not None else tuple(range(self.schedule.steps))

    @property
    def steps(self) -> int:
        """How many these are."""
        return len(self.own_steps)

    @functools.cached_property
    def cost(self) -> Cost:
        """What computed and skipped evaluations cost."""
        return cost_of(self.structure, self.network, self.device, self.branches)


@dataclass(frozen=True)
class Seen:
    """What an evaluation's signal is like beside those of its branch before."""

    signal: torch.Tensor
    """A part of the first blocks' residual, or of what the tap reads: ``[B, L, D]``."""
    since_last: float | None = None
    """Relative change against the evaluation before, skipped or not; None at the first one."""
    since_computed: float | None = None
    """The same against the last computed one."""


class Policy:
    """One technique's decisions for one branch of one sampling run."""

    first_blocks = 0
    """How many blocks always run before the decision (Fn)."""
    last_blocks = 0
    """How many blocks always run after the skipped ones (Bn)."""
    max_age: float = math.inf
    """For how many steps a residual may be used."""
    tap: Tap | None = None
    """With no first blocks: where the signal is read; None takes the hidden state."""

    computed_cost: float = 1.0
    """What a computed evaluation costs beside one of a run that skips none, where it is known."""
    promised: float = 0.0
    """How many times faster it plans to make the run; 0 where nothing is planned."""

    watches = False
    """Whether it is to get what blocks make: ``first_block``, and the output in ``computed``."""

    def decide(self, step: int, seen: Seen, blocked: str | None) -> Decision:
        """Reuse or compute?

        ``blocked`` is a reason why this evaluation must be computed whatever the policy thinks
        (no residual yet, outside the percent window), or None.
        """
        raise NotImplementedError

    def computed(self, step: int, signal: torch.Tensor, output: torch.Tensor | None) -> None:
        """The evaluation was computed.

        ``signal`` may be kept, and so may ``output``, the image stream after the last skippable
        block, which is None unless it is wanted.
        """

    def first_block(self, residual: torch.Tensor | None) -> None:
        """What the first block added to the image stream, thinned, of a computed evaluation.

        Told before ``computed``; None for a policy that does not watch or has first blocks.
        """

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor kept, for the memory report."""
        return []

    def explain(self, report: RunReport) -> str | None:
        """Why little was skipped, in one sentence, or None."""
        return None

    def advise(self, report: RunReport) -> str | None:
        """What this run could not do as it was asked to, however much was skipped, or None.

        First the reason, then the next step.
        """
        return None


class Technique(Protocol):
    """A technique with its settings, able to open a policy for every run."""

    name: str
    title: str
    """Of the node that asks for it."""

    @property
    def settings(self) -> CachingSettings:
        """What was asked for."""
        ...

    changes_pictures: bool
    """Whether it skips anything, so that an operator's lock concerns it."""

    def check(self, structure: Structure) -> None:
        """Raise AccelerationError if the settings do not fit this model."""
        ...

    def notices(self, info: RunInfo) -> list[str]:
        """Sentences about settings that mean less than they say in this run."""
        ...

    def open(self, info: RunInfo) -> Policy:
        """A fresh policy for one branch.

        Raises AccelerationError if the settings do not fit the run.
        """
        ...

    def describe(self) -> dict[str, object]:
        """Settings as plain data."""
        ...


FEWEST_STEPS = 8
"""A model that is sampled in fewer steps changes too much from step to step to skip any."""

FAST_ALREADY = (
    "a model of so few steps is fast already, and Attention Backend or Quantize Model help here"
)

NOISY_SAMPLERS = ("ancestral", "sde", "lcm", "ddpm", "seeds_", "sa_solver")
"""Parts of the names of the host's sampler functions that add fresh noise in every step."""


def adds_noise(sampler: str) -> bool:
    """Whether a sampler's name says that it adds fresh noise in every step."""
    return any(part in sampler for part in NOISY_SAMPLERS)


def corrector_notices(on: bool, sampler: str) -> list[str]:
    """The sentence for a run whose sampler the corrector does not know."""
    if not on or sampler in SAMPLERS:
        return []
    return [
        f"the corrector does not know how {sampler} adds up its steps, so it had no effect; it "
        f"knows {', '.join(SAMPLERS)}"
    ]

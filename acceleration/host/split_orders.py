"""What the driver tells the ranks, as data."""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

from ..parallel import Plan, RankReport
from ..policies.base import Technique
from ..report import EvaluationRecord
from ..schedule import Stage


@dataclass(frozen=True)
class Loader:
    """How a network is loaded again: what the host's loader has left on the MODEL.

    A function by module and name with its arguments; ``part`` is the place of the MODEL in what it
    returns, None where it is that itself.
    """

    module: str
    name: str
    args: tuple[Any, ...]
    part: int | None = None

    @property
    def key(self) -> str:
        """The same for loaders that load the same."""
        return repr((self.module, self.name, self.args, self.part))


@dataclass(frozen=True)
class RunOrder:
    """A sampling run begins."""

    shape: tuple[int, ...]
    """Of the noise, ``[B, C, …]``."""
    exchange: str


@dataclass(frozen=True)
class CachingOrder:
    """What a rank needs to cache as one process would."""

    technique: Technique
    sigmas: tuple[float, ...]
    sigma_max: float
    sampler: str
    window: tuple[float, float]
    branches: int
    gain: float = 1.0
    """See ``Schedule``."""


@dataclass(frozen=True)
class Course:
    """Where an evaluation stands in a caching run; see ``sampling.course.Call``."""

    key: Hashable
    label: str
    sigma: Any
    conds: int
    part_lengths: tuple[int, ...]
    stage: Stage | None
    prediction: int


@dataclass(frozen=True)
class EvaluationOrder:
    """One call of the network, the same for every rank."""

    args: tuple[Any, ...]
    """Packed, and so are ``kwargs`` and ``options``."""
    kwargs: dict[str, Any]
    options: dict[str, Any]
    """The plain part of ``transformer_options``."""
    plan: Plan
    rows: int
    course: Course | None = None


@dataclass(frozen=True)
class Outcome:
    """What became of an evaluation on one rank."""

    output: Any = None
    """Packed, of the first rank of a team only."""
    record: EvaluationRecord | None = None
    """What a caching run decided, where there is one."""
    again: str = ""
    """Why all must begin again, or empty."""
    failure: str = ""
    """What went wrong, or empty."""
    so_far: RankReport | None = None
    """What this rank has done in the run until now."""
    kind: str = ""
    """``setting``, ``memory``, ``model``, ``stopped``, or ``peer`` where another one had failed."""

    @property
    def failed(self) -> bool:
        return bool(self.again or self.failure)


@dataclass(frozen=True)
class Opened:
    """What a rank says of a run that was opened on it."""

    device: str
    computer: str
    weights: int

"""What happened in a sampling run, as plain data. Holds no tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Protocol

DEFAULT = "default"
"""Origin of a setting that nobody has set."""

SWITCHED_OFF = "switched off"
"""Outcome of a lever that an operator has locked."""

REPLACED = "replaced"
"""Outcome of a lever whose place another node has taken."""

REFUSED = "refused"
"""Outcome of a lever whose settings do not fit the run, which an error ends."""


@dataclass
class EvaluationRecord:
    """One model evaluation."""

    step: int
    """Index in the schedule, from 0."""
    position: float
    """Place in the schedule; fractions lie between two steps."""
    sigma: float
    branch: str
    skipped: bool
    reason: str
    diff: float | None
    """Measured relative change, None where none was needed."""
    seconds: float
    forecast: bool = False
    """Whether a skipped evaluation got more than the last residual as it was."""
    threshold: float | None = None
    """What ``accumulated``, or else ``diff``, was compared with."""
    accumulated: float | None = None
    """Sum of estimated changes since the last computed evaluation, where a technique sums."""
    size: str = ""
    """Height and width of the latent, ``"16 x 16"``, in a run of several sizes."""
    full: bool = True
    """Whether that is the sampler's size."""


@dataclass
class StageReport:
    """The evaluations at one size."""

    size: str
    full: bool
    evaluations: int = 0
    seconds: float = 0.0

    @property
    def each(self) -> float:
        """Mean seconds of an evaluation."""
        return self.seconds / self.evaluations if self.evaluations else 0.0


class Resolved(Protocol):
    """Where the settings of a node come from, and what there is to say of that."""

    @property
    def origins(self) -> Mapping[str, str]: ...
    @property
    def notices(self) -> Sequence[str]: ...


@dataclass(kw_only=True)
class Report:
    """What every lever reports of one sampling run."""

    settings: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    """Where each setting comes from: node, file, environment variable or default."""
    notices: list[str] = field(default_factory=list)
    outcome: str = "running"
    """``finished``, ``interrupted`` (error or Cancel), ``running``, or what stands above."""

    def notice(self, sentence: str) -> None:
        """Add a sentence once."""
        if sentence not in self.notices:
            self.notices.append(sentence)

    def came_from(self, resolved: Resolved | None) -> None:
        """Note where the settings come from."""
        if resolved is not None:
            self.origins = dict(resolved.origins)
            for sentence in resolved.notices:
                self.notice(sentence)

    def took_the_place_of(self, other: str | None) -> None:
        """Note what the node replaced, if anything."""
        if other:
            self.notice(f"this node replaced {other}, set on the same model before it")

    def sentence(self) -> str:
        """What was gained, or why nothing was, in one sentence."""
        raise NotImplementedError

    def lines(self) -> list[str]:
        """What the lever itself tells, for people."""
        raise NotImplementedError

    def text(self) -> str:
        """A few lines for people: what the lever tells, what was chosen where, and notes."""
        lines = self.lines()
        chosen = [
            f"{name} {self.settings[name]} ({origin})"
            for name, origin in self.origins.items()
            if origin != DEFAULT
        ]
        if chosen:
            lines.append(f"Settings: {', '.join(chosen)}; the rest as by default.")
        # What the sentence has said need not be noted.
        notes = [notice for notice in self.notices if notice not in lines[0]]
        return "\n".join([*lines, *(f"Note: {notice}." for notice in notes)])

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            "settings": self.settings,
            "origins": self.origins,
            "outcome": self.outcome,
            "sentence": self.sentence(),
            "notices": list(self.notices),
        }


@dataclass
class RunReport(Report):
    """One sampling run of one model."""

    technique: str
    family: str = ""
    structure: str = ""
    sampler: str = ""
    steps: int = 0
    evaluations: list[EvaluationRecord] = field(default_factory=list)
    explanation: str = ""
    """What limited this run and what helps, where that is known."""
    residual_placement: str = ""
    residual_peak_bytes: int = 0
    seconds: float = 0.0
    computed_cost: float = 1.0
    """What a computed evaluation costs beside one of a run that skips none, where it is known."""
    promised: float = 0.0
    """How many times faster the run was planned to be; 0 where nothing was planned."""
    switch: str = ""
    """In a run of several sizes: at which sigma the full size begins, and why there."""

    @property
    def computed(self) -> int:
        """Number of model evaluations computed in full."""
        return sum(not e.skipped for e in self.evaluations)

    @property
    def skipped(self) -> int:
        """Number of model evaluations served from the cache."""
        return sum(e.skipped for e in self.evaluations)

    @property
    def steps_begun(self) -> int:
        """Number of different steps of the schedule that were evaluated."""
        return len({e.step for e in self.evaluations})

    def branches(self) -> list[dict[str, Any]]:
        """Evaluations computed and skipped per branch, in order of appearance."""
        counts = Counter((e.branch, e.skipped) for e in self.evaluations)
        names = dict.fromkeys(e.branch for e in self.evaluations)
        return [
            {"name": n, "computed": counts[n, False], "skipped": counts[n, True]} for n in names
        ]

    def stages(self) -> list[StageReport]:
        """The evaluations by size, in order of appearance; empty in a run of one size."""
        found: dict[str, StageReport] = {}
        for e in self.evaluations:
            stage = found.setdefault(e.size, StageReport(e.size, e.full))
            stage.evaluations += 1
            stage.seconds += e.seconds
        return [] if list(found) == [""] else list(found.values())

    def seconds_saved(self) -> float | None:
        """Measured time of the evaluations against that of as many full ones: the mean computed one
        of their size, less what is remembered in it as far as that is known."""
        sizes = dict.fromkeys(e.size for e in self.evaluations)
        saved = [found for size in sizes if (found := self._saved_at(size)) is not None]
        return sum(saved) if saved else None

    def speedup(self) -> float | None:
        """How many times faster the run was than with every evaluation computed, measured."""
        saved = self.seconds_saved()
        return (self.seconds + saved) / self.seconds if saved is not None and self.seconds else None

    def _saved_at(self, size: str) -> float | None:
        # While a run goes on the newest evaluations have no time yet.
        timed = [e for e in self.evaluations if e.size == size and e.seconds]
        first = self.evaluations[0]
        computed = [e.seconds for e in timed if not e.skipped and e is not first]
        skipped = [e.seconds for e in timed if e.skipped]
        if not computed or not skipped:
            return None
        mean = sum(computed) / len(computed)
        full = mean / self.computed_cost
        remembered = (len(timed) - len(skipped)) * (mean - full)
        return len(skipped) * full - sum(skipped) - remembered

    def sentence(self) -> str:
        """What was gained, or why nothing was, in one sentence."""
        total = len(self.evaluations)
        if not total:
            return f"{self.technique}: {self.explanation or 'no model evaluation was seen'}."
        text = f"{self.technique}: "
        if self.outcome == "interrupted":
            text += f"stopped in step {self.steps_begun} of {self.steps}; "
        if not self.skipped:
            why = self.explanation or "; ".join(self.notices) or "every change was too large"
            return f"{text}nothing skipped in {total} evaluations: {why}."
        text += f"skipped {self.skipped} of {total} evaluations"
        saved = self.seconds_saved()
        if saved is not None:
            text += f", about {_duration(saved)} of {_duration(self.seconds + saved)} saved"
        speedup = self.speedup()
        if speedup is not None and self.promised > 1.0 and self.outcome == "finished":
            text += f": {speedup / self.promised:.0%} of the planned speed"
        if self.explanation:
            text += f"; {self.explanation}"
        return text + "."

    def lines(self) -> list[str]:
        lines = [self.sentence()]
        if self.outcome == SWITCHED_OFF:
            return lines
        lines.append(
            f"Model: {self.family or 'unknown'} ({self.structure or 'not accelerated'}); sampler "
            f"{self.sampler}, {self.steps} steps, {len(self.evaluations)} evaluations, "
            f"{self.seconds:.2f} s ({self.outcome})."
        )
        for branch in self.branches():
            lines.append(
                f"  {branch['name']}: {branch['computed']} computed, {branch['skipped']} skipped"
            )
        lines += stage_lines(self.stages())
        if self.residual_peak_bytes:
            lines.append(
                f"Residuals: {self.residual_peak_bytes / 2**20:.1f} MiB at peak, kept on "
                f"{self.residual_placement}."
            )
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            **super().as_dict(),
            "technique": self.technique,
            "family": self.family,
            "structure": self.structure,
            "sampler": self.sampler,
            "steps": self.steps,
            "steps_begun": self.steps_begun,
            "evaluations": len(self.evaluations),
            "computed": self.computed,
            "skipped": self.skipped,
            "branches": self.branches(),
            "seconds": self.seconds,
            "seconds_saved": self.seconds_saved(),
            "speedup": self.speedup(),
            "promised": self.promised,
            "computed_cost": self.computed_cost,
            "stages": [asdict(stage) for stage in self.stages()],
            "switch": self.switch,
            "residual_placement": self.residual_placement,
            "residual_peak_bytes": self.residual_peak_bytes,
            "decisions": [asdict(e) for e in self.evaluations],
        }


def stage_lines(stages: Sequence[StageReport]) -> list[str]:
    """A line for each size of a run."""
    return [
        f"  {stage.size or 'then'}{' (full size)' if stage.full else ''}: {stage.evaluations} "
        f"evaluations, {stage.seconds:.2f} s"
        for stage in stages
    ]


def _duration(seconds: float) -> str:
    """A length of time for people, to about two digits."""
    if abs(seconds) < 10:
        return f"{seconds:.2g} s"
    if abs(seconds) < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"

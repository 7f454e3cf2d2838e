"""What happened in a sampling run, as plain data. Holds no tensor."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

DEFAULT = "default"
"""Origin of a setting that nobody has set."""

SWITCHED_OFF = "switched off"
"""Outcome of a lever that an operator has locked."""


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


@dataclass
class RunReport:
    """One sampling run of one model."""

    technique: str
    settings: dict[str, Any]
    origins: dict[str, str] = field(default_factory=dict)
    """Where each setting comes from: node, file, environment variable or default."""
    family: str = ""
    structure: str = ""
    sampler: str = ""
    steps: int = 0
    evaluations: list[EvaluationRecord] = field(default_factory=list)
    notices: list[str] = field(default_factory=list)
    explanation: str = ""
    """Why little was skipped, where that is known."""
    residual_placement: str = ""
    residual_peak_bytes: int = 0
    seconds: float = 0.0
    outcome: str = "running"
    """``finished``, ``interrupted`` (error or Cancel), ``running`` or ``switched off``."""

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

    def notice(self, sentence: str) -> None:
        """Add a sentence once."""
        if sentence not in self.notices:
            self.notices.append(sentence)

    def branches(self) -> list[dict[str, Any]]:
        """Evaluations computed and skipped per branch, in order of appearance."""
        counts = Counter((e.branch, e.skipped) for e in self.evaluations)
        names = dict.fromkeys(e.branch for e in self.evaluations)
        return [
            {"name": n, "computed": counts[n, False], "skipped": counts[n, True]} for n in names
        ]

    def seconds_saved(self) -> float | None:
        """Measured time of the skipped evaluations against the mean computed one."""
        # While a run goes on the newest evaluations have no time yet.
        computed = [e.seconds for e in self.evaluations[1:] if not e.skipped and e.seconds]
        skipped = [e.seconds for e in self.evaluations if e.skipped and e.seconds]
        if not computed or not skipped:
            return None
        return len(skipped) * sum(computed) / len(computed) - sum(skipped)

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
        if self.explanation:
            text += f"; {self.explanation}"
        return text + "."

    def text(self) -> str:
        """A few lines for people."""
        if self.outcome == SWITCHED_OFF:
            return self.sentence()
        lines = [
            self.sentence(),
            f"Model: {self.family or 'unknown'} ({self.structure or 'not accelerated'}); sampler "
            f"{self.sampler}, {self.steps} steps, {len(self.evaluations)} evaluations, "
            f"{self.seconds:.2f} s ({self.outcome}).",
        ]
        for branch in self.branches():
            lines.append(
                f"  {branch['name']}: {branch['computed']} computed, {branch['skipped']} skipped"
            )
        if self.residual_peak_bytes:
            lines.append(
                f"Residuals: {self.residual_peak_bytes / 2**20:.1f} MiB at peak, kept on "
                f"{self.residual_placement}."
            )
        lines += told_origins(self.settings, self.origins)
        lines += [f"Note: {notice}." for notice in self.notices]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            "technique": self.technique,
            "settings": self.settings,
            "origins": self.origins,
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
            "residual_placement": self.residual_placement,
            "residual_peak_bytes": self.residual_peak_bytes,
            "outcome": self.outcome,
            "sentence": self.sentence(),
            "notices": list(self.notices),
            "decisions": [asdict(e) for e in self.evaluations],
        }


def told_origins(settings: Mapping[str, Any], origins: Mapping[str, str]) -> list[str]:
    """A line that says which settings are not the default, and where they come from, if any."""
    chosen = [
        f"{name} {settings[name]} ({origin})"
        for name, origin in origins.items()
        if origin != DEFAULT
    ]
    return [f"Settings: {', '.join(chosen)}; the rest as by default."] if chosen else []


def _duration(seconds: float) -> str:
    """A length of time for people, to about two digits."""
    if abs(seconds) < 10:
        return f"{seconds:.2g} s"
    if abs(seconds) < 100:
        return f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s"

"""What Progressive Resolution did in a run, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from ..report import Report, RunReport, StageReport, stage_lines

NAME = "Progressive Resolution"


@dataclass
class ProgressiveReport(Report):
    """One sampling run."""

    mode: str = ""
    """The mode in force, where ``auto`` was asked for."""
    stages: list[StageReport] = field(default_factory=list)
    """By size, the coarsest first."""
    switch: str = ""
    """At which sigma the full size begins, and why there."""
    refused: str = ""
    """Why the whole run went at full size."""

    def refuse(self, sentence: str) -> None:
        """The first reason why the run goes at full size counts."""
        self.refused = self.refused or sentence

    @property
    def coarse(self) -> list[StageReport]:
        """Stages below the full size that were used."""
        return [stage for stage in self.stages if not stage.full and stage.evaluations]

    def speedup(self) -> float | None:
        """How many times faster than all evaluations at full size, by measured times."""
        saved = saved_in(self.stages)
        if saved is None:
            return None
        seconds = sum(stage.seconds for stage in self.stages)
        return (seconds + saved) / seconds

    def sentence(self) -> str:
        """What was gained, or why nothing was, in one sentence."""
        if not self.coarse:
            why = self.refused or "the noise was below the switch from the beginning"
            return f"{NAME}: the whole run went at full size: {why}."
        total = sum(stage.evaluations for stage in self.stages)
        parts = ", ".join(f"{stage.evaluations} at {stage.size}" for stage in self.coarse)
        text = f"{NAME}: of {total} evaluations {parts}"
        gained = self.speedup()
        if gained is not None:
            text += f"; {gained:.2f} times as fast as all at full size"
        if self.refused:
            text += f"; then at full size, as {self.refused}"
        return text + "."

    def lines(self) -> list[str]:
        lines = [self.sentence()]
        if self.switch:
            lines.append(f"Mode {self.mode}: {self.switch}.")
        return lines + stage_lines(self.stages)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            **super().as_dict(),
            "mode": self.mode,
            "stages": [asdict(stage) for stage in self.stages],
            "switch": self.switch,
            "refused": self.refused,
            "speedup": self.speedup(),
        }


def saved_in(stages: Sequence[StageReport]) -> float | None:
    """Measured seconds that all evaluations at full size would have taken more."""
    full = next((stage for stage in stages if stage.full and stage.evaluations), None)
    coarse = [stage for stage in stages if not stage.full and stage.evaluations]
    if full is None or not coarse or not full.each:
        return None
    return sum(stage.evaluations * full.each - stage.seconds for stage in coarse)


@dataclass
class Predictions(RunReport):
    """Every prediction of a run, for who watches it; the words are those of its report."""

    of: ProgressiveReport = field(default_factory=ProgressiveReport)

    def add_up(self) -> None:
        """Count its predictions only: what a sampler does between them has no size."""
        self.seconds = sum(e.seconds for e in self.evaluations)

    def seconds_saved(self) -> float | None:
        """Measured: coarse predictions against the mean one at full size."""
        return saved_in(self.stages())

    def sentence(self) -> str:
        return self.of.sentence()

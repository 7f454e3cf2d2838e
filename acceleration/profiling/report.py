"""What profiling showed, as plain data. Holds no tensor."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from ..report import Report
from .trace import Breakdown


@dataclass
class StepRecord:
    """One model evaluation."""

    evaluation: int
    """From 1."""
    step: int
    """Index in the schedule, from 0."""
    sigma: float
    branch: str
    ms: float
    """From its begin to the begin of the next, so with the sampler's own work after it."""
    model_ms: float
    """In the model alone."""
    memory_bytes: int
    """Allocated on the GPU after it; without a GPU, memory of the process."""
    peak_bytes: int | None
    """Most that was allocated on the GPU during it."""
    traced: bool


@dataclass
class ProfileReport(Report):
    """What a profiled run showed, as plain data."""

    device: str = "cpu"
    file: str = ""
    """The trace, or in mode ``nvtx`` the times, as a path in the host's output folder."""
    seconds: float = 0.0
    setup_seconds: float = 0.0
    """Before the first evaluation."""
    profiler_seconds: float = 0.0
    """Starting and stopping the profiler between evaluations."""
    steps: list[StepRecord] = field(default_factory=list)
    breakdown: Breakdown = field(default_factory=Breakdown)

    @property
    def traced(self) -> int:
        """Number of evaluations in the trace."""
        return sum(step.traced for step in self.steps)

    def sentence(self) -> str:
        """How much was traced and where it is, or why nothing was."""
        total = len(self.steps)
        if not total:
            return "Profile: no model evaluation was seen."
        if not self.traced:
            why = "; ".join(self.notices) or "the run was too short"
            return f"Profile: nothing traced in {total} evaluations: {why}."
        mean = sum(s.ms for s in self.steps if s.traced) / self.traced
        what = "traced" if self.settings["mode"] == "trace" else "marked for nsys"
        text = f"Profile: {what} {self.traced} of {total} evaluations, {mean:.1f} ms each"
        return f"{text}, written to {self.file} in the output folder." if self.file else f"{text}."

    def lines(self) -> list[str]:
        """The sentence, time by part, and the operations that took most."""
        lines = [
            self.sentence(),
            f"Run: {self.seconds:.3f} s ({self.outcome}); before the first evaluation "
            f"{self.setup_seconds:.3f} s, profiler {self.profiler_seconds:.3f} s.",
        ]
        found = self.breakdown
        if found.evaluations:
            where = "GPU" if found.on_device else "CPU"
            lines.append(f"Time by part, ms an evaluation on the {where}:")
            for name, ms in sorted(found.parts.items(), key=lambda part: -part[1]):
                share = 100 * ms / (found.total_ms or 1.0)
                lines.append(f"  {name:<18}{ms / found.evaluations:9.2f}  {share:5.1f} %")
            lines.append("Operations that took most, ms in all (calls):")
            for o in found.operations:
                lines.append(f"  {o.name:<52}{o.ms:9.2f}  ({o.calls})")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            **super().as_dict(),
            "device": self.device,
            "file": self.file,
            "seconds": self.seconds,
            "setup_seconds": self.setup_seconds,
            "profiler_seconds": self.profiler_seconds,
            "traced": self.traced,
            "steps": [asdict(step) for step in self.steps],
            "breakdown": self.breakdown.as_dict(),
        }

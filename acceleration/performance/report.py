"""What Performance Mode set and why, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..report import Report


@dataclass
class PerformanceReport(Report):
    """The decisions of one sampling run."""

    decisions: dict[str, str] = field(default_factory=dict)
    """What was decided and why, by lever: "weights", "attention", "compile", "approximation"."""
    seconds: float = 0.0
    """Length of the run once the model was loaded, measured."""

    def title(self) -> str:
        """The node with its two choices."""
        return "Performance Mode ({mode}, {approximation})".format_map(self.settings)

    def decided(self) -> str:
        """Every decision with its reason."""
        said = "; ".join(f"{lever}: {why}" for lever, why in self.decisions.items())
        return said or "nothing to set"

    def sentence(self) -> str:
        """Every decision in one line."""
        return f"{self.title()}: {self.decided()}."

    def lines(self) -> list[str]:
        title = "Performance Mode: {mode}, approximation {approximation}.".format_map(self.settings)
        return [title, *(f"  {lever}: {why}" for lever, why in self.decisions.items())]

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            **super().as_dict(),
            **self.settings,
            "decisions": dict(self.decisions),
            "seconds": self.seconds,
        }

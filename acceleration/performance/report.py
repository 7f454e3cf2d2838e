"""What Performance Mode set and why, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ..report import told_origins


@dataclass
class PerformanceReport:
    """The decisions of one sampling run."""

    mode: str
    approximation: str
    target_speedup: float
    decisions: dict[str, str] = field(default_factory=dict)
    """What was decided and why, by lever: "weights", "attention", "compile", "approximation"."""
    origins: dict[str, str] = field(default_factory=dict)
    """Where each setting comes from: node, file, environment variable or default."""
    notices: list[str] = field(default_factory=list)

    @property
    def settings(self) -> dict[str, Any]:
        """What was asked for, by the names of the node's inputs."""
        return {
            "mode": self.mode,
            "approximation": self.approximation,
            "target_speedup": self.target_speedup,
        }

    def title(self) -> str:
        """The node with its two choices."""
        return f"Performance Mode ({self.mode}, {self.approximation})"

    def decided(self) -> str:
        """Every decision with its reason."""
        said = "; ".join(f"{lever}: {why}" for lever, why in self.decisions.items())
        return said or "nothing to set"

    def sentence(self) -> str:
        """Every decision in one line."""
        return f"{self.title()}: {self.decided()}."

    def text(self) -> str:
        """A few lines for people."""
        lines = [f"Performance Mode: {self.mode}, approximation {self.approximation}."]
        lines += [f"  {lever}: {why}" for lever, why in self.decisions.items()]
        lines += told_origins(self.settings, self.origins)
        lines += [f"Note: {notice}." for notice in self.notices]
        return "\n".join(lines)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            **self.settings,
            "decisions": dict(self.decisions),
            "origins": dict(self.origins),
            "notices": list(self.notices),
            "sentence": self.sentence(),
        }

"""What attention really ran in a sampling run, as plain data."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from ..report import Report
from .registry import AUTO, DEFAULT, class_of

AUTO_FITS = "Choose auto, which finds the fastest one that takes these calls"


@dataclass(frozen=True)
class Row:
    """Calls with one fate."""

    backend: str
    """Who computed them."""
    reason: str
    """Why not the chosen one; empty when it was."""
    calls: int


@dataclass
class AttentionReport(Report):
    """One sampling run under one Attention Backend node."""

    host_function: str = ""
    """Name of the host's own attention function, as its calls brought it."""
    counts: Counter[tuple[str, str]] = field(default_factory=Counter)
    """Calls by who computed them and why not the chosen one."""
    choices: dict[str, str] = field(default_factory=dict)
    """What auto chose, by device and class of calls, with the times."""
    probes: dict[str, str] = field(default_factory=dict)
    """What trying a backend brought: its error, or why it cannot be used."""
    failed: str = ""
    """What went wrong in this pack itself, the first time; empty when nothing did."""
    seconds: float = 0.0

    @property
    def backend(self) -> str:
        """The chosen value."""
        return str(self.settings["backend"])

    @property
    def calls(self) -> int:
        """All attention calls that were seen."""
        return sum(self.counts.values())

    @property
    def rows(self) -> list[Row]:
        """The counts, most calls first."""
        return [Row(backend, why, n) for (backend, why), n in self.counts.most_common()]

    @property
    def quality_class(self) -> str:
        """The class of what ran, which may be better than that of the choice."""
        ran = {class_of(row.backend) for row in self.rows if row.backend != DEFAULT}
        if "quality-tradeoff" in ran:
            return "quality-tradeoff"
        return "output-preserving" if ran else class_of(self.backend)

    def fault(self, problem: Exception) -> None:
        """Say that something went wrong in this pack itself; the first time does."""
        if self.failed:
            return
        lines = str(problem).strip().splitlines() or ["no message"]
        self.failed = (
            f"something in this node went wrong ({type(problem).__name__}: {lines[0][:200]}), so "
            "ComfyUI's own attention computed in its place"
        )
        self.notice(self.failed)

    def sentence(self) -> str:
        """Who computed how many calls, and why not the chosen one."""
        if not self.calls and self.failed:
            return f"Attention Backend ({self.backend}): {self.failed}."
        if not self.calls:
            return (
                f"Attention Backend ({self.backend}): no attention call was seen; this model's "
                "attention does not pass through the host's override."
            )
        as_chosen: Counter[str] = Counter()
        for row in self.rows:
            if not row.reason:
                as_chosen[row.backend] += row.calls
        title = f"Attention Backend ({self.backend})"
        others = [
            f"{row.calls} by {self._named(row.backend)} because {row.reason}"
            for row in self.rows
            if row.reason
        ]
        if not as_chosen:
            help_here = "" if self.backend == AUTO else f" {AUTO_FITS}."
            text = "; ".join(others)
            return f"{title}: of {self.calls} calls none ran as chosen: {text}.{help_here}"
        ran = ", ".join(f"{self._named(name)} {n}" for name, n in as_chosen.most_common())
        text = "; ".join([f"{title}: of {self.calls} calls {ran}", *others])
        return f"{text} ({self.quality_class})."

    def _named(self, backend: str) -> str:
        return f"{DEFAULT} ({self.host_function})" if backend == DEFAULT else backend

    def lines(self) -> list[str]:
        lines = [self.sentence()]
        if self.backend == AUTO:
            lines += [f"  {kind}: {choice}" for kind, choice in self.choices.items()]
        return lines + [f"  {name} {reason}" for name, reason in self.probes.items()]

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            **super().as_dict(),
            "backend": self.backend,
            "quality_class": self.quality_class,
            "host_function": self.host_function,
            "calls": self.calls,
            "counts": [asdict(row) for row in self.rows],
            "choices": dict(self.choices),
            "probes": dict(self.probes),
            "seconds": self.seconds,
        }

"""What a run that was split over GPUs did, as plain data."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from ..report import Report, RunReport

NAME = "Split Across GPUs"


@dataclass
class RankReport:
    """One rank in one run."""

    rank: int
    device: str
    computer: str = ""
    weights: int = 0
    """Bytes of the model's weights that it holds."""
    held: str = ""
    """Rows and tokens that were its, in the last evaluation."""
    peak: int = 0
    """Most bytes that were allocated on its GPU; 0 where that is not counted."""
    sent: int = 0
    """Bytes that it handed to others."""
    exchanges: int = 0
    waited: float = 0.0
    """Seconds in exchanges: the transfer, and waiting for others."""
    residuals: int = 0
    """Most bytes that caching kept on it."""

    def take(self, later: RankReport) -> None:
        """What the rank itself has counted since."""
        self.held, self.peak, self.sent = later.held, later.peak, later.sent
        self.exchanges, self.waited = later.exchanges, later.waited

    def line(self) -> str:
        parts = [f"{self.weights / 2**30:.2f} GiB of weights"]
        if self.held:
            parts.append(self.held)
        if self.peak:
            parts.append(f"peak {self.peak / 2**30:.2f} GiB")
        if self.exchanges:
            parts.append(
                f"sent {self.sent / 2**20:.1f} MiB in {self.exchanges} exchanges, "
                f"{self.waited:.2f} s in them"
            )
        if self.residuals:
            parts.append(f"residuals up to {self.residuals / 2**20:.1f} MiB")
        where = f" of {self.computer}" if self.computer else ""
        return f"  rank {self.rank} ({self.device}{where}): {', '.join(parts)}"


@dataclass
class SplitReport(Report):
    """One sampling run."""

    gpus: int = 0
    shared: Counter[str] = field(default_factory=Counter)
    """Evaluations by what the GPUs shared in them."""
    ranks: list[RankReport] = field(default_factory=list)
    seconds: float = 0.0
    """In evaluations, as the sampler waited for them."""
    started: float | None = None
    """Seconds that it took to start the processes, None where they were there."""
    loaded: float | None = None
    """The same of loading the model."""

    @property
    def evaluations(self) -> int:
        """Evaluations of the network."""
        return sum(self.shared.values())

    def sentence(self) -> str:
        """What was shared by whom, in one sentence."""
        if not self.evaluations:
            return f"{NAME}: no evaluation was run on {self.gpus} GPUs."
        shared = "; ".join(f"{count} × {how}" for how, count in self.shared.items())
        waited = max((rank.waited for rank in self.ranks), default=0.0)
        text = (
            f"{NAME}: {self.evaluations} evaluations on {self.gpus} GPUs in {self.seconds:.1f} s "
            f"({shared})"
        )
        return f"{text}, up to {waited:.1f} s of it in exchanges." if waited else f"{text}."

    def shown(self, steps: int) -> RunReport:
        """What its node shows, besides the ranks."""
        said = self.sentence().removeprefix(f"{NAME}: ").removesuffix(".")
        return RunReport(NAME, steps=steps, explanation=said, outcome=self.outcome)

    def lines(self) -> list[str]:
        lines = [self.sentence()]
        took = [
            f"{what} in {seconds:.1f} s"
            for what, seconds in (
                ("processes started", self.started),
                ("model loaded", self.loaded),
            )
            if seconds is not None
        ]
        lines += [f"{', '.join(took)}.".capitalize()] if took else []
        return lines + [rank.line() for rank in self.ranks]

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            **super().as_dict(),
            "gpus": self.gpus,
            "shared": dict(self.shared),
            "ranks": [asdict(rank) for rank in self.ranks],
            "seconds": self.seconds,
            "started": self.started,
            "loaded": self.loaded,
        }

"""What a sampling run tells a listener while it runs, as plain data. Holds no tensor."""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from ..report import EvaluationRecord, RunReport

log = logging.getLogger("dit_acceleration")

Look = Callable[[], RunReport]
"""Brings the report's times and memory up to date without waiting for the device."""

COMPUTED, REUSED, FORECAST = "c", "r", "f"
"""Marks of evaluations: computed; blocks replaced by the last residual; by a forecast one."""


class Listener(Protocol):
    """Hears of every evaluation of one run, in order, and of its end."""

    def began(self, report: RunReport) -> None:
        """What there is to show of a run before its end, where no evaluation is told of."""
        ...

    def evaluated(self, record: EvaluationRecord, look: Look) -> None:
        """An evaluation is over. Called between evaluations: be quick, look seldom."""
        ...

    def ended(self, report: RunReport) -> None:
        """The run is over; ``report`` is final."""
        ...


class Guarded:
    """A listener whose error ends its listening and never the sampling. None listens to nothing."""

    def __init__(self, listener: Listener | None) -> None:
        self._listener = listener

    def began(self, report: RunReport) -> None:
        if self._listener is not None:
            self._try(lambda listener: listener.began(report))

    def evaluated(self, record: EvaluationRecord, look: Look) -> None:
        if self._listener is not None:
            self._try(lambda listener: listener.evaluated(record, look))

    def ended(self, report: RunReport) -> None:
        if self._listener is not None:
            self._try(lambda listener: listener.ended(report))

    def _try(self, tell: Callable[[Listener], None]) -> None:
        assert self._listener is not None
        try:
            tell(self._listener)
        except Exception:
            self._listener = None
            log.warning("The live report of this run stopped; sampling goes on.", exc_info=True)


@dataclass
class _Row:
    marks: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    reasons: list[int] = field(default_factory=list)
    stages: list[int] = field(default_factory=list)


class Strip:
    """One cell per evaluation, in a row per branch, grown record by record."""

    def __init__(self) -> None:
        self._rows: dict[str, _Row] = {}
        self._reasons: dict[str, int] = {}
        self._sizes: dict[str, int] = {}
        self.step = -1
        """Furthest step begun, -1 before the first."""

    def add(self, record: EvaluationRecord) -> None:
        """Put an evaluation at the end of its branch's row."""
        row = self._rows.setdefault(record.branch, _Row())
        skipped = FORECAST if record.forecast else REUSED
        row.marks.append(skipped if record.skipped else COMPUTED)
        row.steps.append(record.step)
        row.reasons.append(self._reasons.setdefault(record.reason, len(self._reasons)))
        row.stages.append(self._sizes.setdefault(record.size, len(self._sizes)))
        self.step = max(self.step, record.step)

    def as_dict(self) -> dict[str, Any]:
        """``rows``: name, marks as one string, steps and reasons by cell; ``reasons``: phrases.

        In a run of several sizes also the place of each cell among ``RunReport.stages``.
        """
        sizes = list(self._sizes) not in ([], [""])
        rows = [
            {
                "name": name,
                "marks": "".join(row.marks),
                "steps": list(row.steps),
                "reasons": list(row.reasons),
                "stages": list(row.stages) if sizes else [],
            }
            for name, row in self._rows.items()
        ]
        return {"rows": rows, "reasons": list(self._reasons), "step": self.step}

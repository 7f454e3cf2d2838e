"""The report of a run while it grows: times come late, and a listener hears of every evaluation."""

from __future__ import annotations

import time
from collections.abc import Callable

from ..report import EvaluationRecord, RunReport
from ..timing import Span
from .listener import Guarded, Listener


class Records:
    """Writes evaluations into a report.

    Parameters
    ----------
    report
        What is written into.
    listener
        Is told of every evaluation and of the end.
    tell_memory
        Writes into the report what is held.
    """

    def __init__(
        self,
        report: RunReport,
        listener: Listener | None,
        tell_memory: Callable[[RunReport], None],
    ) -> None:
        self._report = report
        self._listener = Guarded(listener)
        self._tell_memory = tell_memory
        self._spans: list[tuple[EvaluationRecord, Span]] = []
        self._began: float | None = None

    def begin(self) -> None:
        """An evaluation begins; the time of the run counts from the first."""
        if self._began is None:
            self._began = time.perf_counter()

    def add(self, record: EvaluationRecord, span: Span) -> None:
        """A call of the network is over."""
        self._report.evaluations.append(record)
        self._spans.append((record, span))
        self._listener.evaluated(record, self._look)

    def _look(self) -> RunReport:
        """The report with the times that are known by now, for the listener."""
        for record, span in self._spans:
            record.seconds = record.seconds or span.seconds_if_over() or 0.0
        return self._told()

    def _told(self) -> RunReport:
        if self._began is not None:
            self._report.seconds = time.perf_counter() - self._began
        self._tell_memory(self._report)
        return self._report

    def end(self) -> None:
        """The run is over: read all times, waiting for the device."""
        for record, span in self._spans:
            record.seconds = span.seconds()
        self._spans.clear()
        self._told()

    def tell_end(self) -> None:
        """The report is final."""
        self._listener.ended(self._report)

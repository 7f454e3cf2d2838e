"""The strip's bookkeeping, and listeners that fail."""

from __future__ import annotations

import pytest

from dit_acceleration_pack.acceleration.report import EvaluationRecord, RunReport
from dit_acceleration_pack.acceleration.sampling.listener import Guarded, Strip

ONE_SIZE: dict[str, list[int]] = {"stages": []}


def record(
    step: int, branch: str, skipped: bool, reason: str, forecast: bool = False
) -> EvaluationRecord:
    return EvaluationRecord(
        step, float(step), 1.0, branch, skipped, reason, None, 0.1, forecast=forecast
    )


def test_strip_keeps_a_row_per_branch() -> None:
    strip = Strip()
    assert strip.as_dict() == {"rows": [], "reasons": [], "step": -1}
    strip.add(record(0, "cond", False, "warm-up"))
    strip.add(record(0, "uncond", False, "warm-up"))
    strip.add(record(1, "cond", True, "below threshold"))
    strip.add(record(1, "uncond", False, "above threshold"))
    strip.add(record(2, "cond", True, "below threshold", forecast=True))
    assert strip.as_dict() == {
        "rows": [
            {"name": "cond", "marks": "crf", "steps": [0, 1, 2], "reasons": [0, 1, 1], **ONE_SIZE},
            {"name": "uncond", "marks": "cc", "steps": [0, 1], "reasons": [0, 2], **ONE_SIZE},
        ],
        "reasons": ["warm-up", "below threshold", "above threshold"],
        "step": 2,
    }


class Failing:
    def __init__(self) -> None:
        self.calls = 0

    def evaluated(self, *_: object) -> None:
        self.calls += 1
        raise RuntimeError("the page is gone")

    def ended(self, *_: object) -> None:
        self.calls += 1


def test_a_failing_listener_is_asked_once_and_hurts_nobody(
    caplog: pytest.LogCaptureFixture,
) -> None:
    listener, report = Failing(), RunReport("Cache-DiT")
    guarded = Guarded(listener)
    guarded.evaluated(record(0, "cond", False, "warm-up"), lambda: report)
    guarded.evaluated(record(1, "cond", False, "warm-up"), lambda: report)
    guarded.ended(report)
    assert listener.calls == 1
    assert len(caplog.records) == 1 and "sampling goes on" in caplog.text


def test_times_not_yet_known_do_not_count_as_none() -> None:
    report = RunReport("Cache-DiT")
    report.evaluations = [
        EvaluationRecord(i, float(i), 1.0, "cond", skipped, "", None, seconds)
        for i, (skipped, seconds) in enumerate(
            [(False, 9.0), (False, 2.0), (True, 0.5), (False, 0.0), (True, 0.0)]
        )
    ]
    # One skipped evaluation of 0.5 s in place of one of 2 s; the last two are not measured yet.
    assert report.seconds_saved() == 1.5


@pytest.mark.parametrize(
    ("seconds", "saved", "text"),
    [(2.0, 1.0, "1 s of 3 s"), (30.0, 12.0, "12 s of 42 s"), (100.0, 150.0, "2 min 30 s of 4 min")],
)
def test_sentence_says_lengths_of_time_for_people(
    monkeypatch: pytest.MonkeyPatch, seconds: float, saved: float, text: str
) -> None:
    report = RunReport("Cache-DiT", seconds=seconds, outcome="finished")
    report.evaluations = [record(0, "cond", True, "below threshold")]
    monkeypatch.setattr(RunReport, "seconds_saved", lambda _: saved)
    assert f"about {text}" in report.sentence()


def test_promise_and_outcome_are_one_number(monkeypatch: pytest.MonkeyPatch) -> None:
    report = RunReport("Performance Mode", seconds=10.0, promised=2.0, outcome="finished")
    report.evaluations = [record(0, "cond", True, "planned")]
    monkeypatch.setattr(RunReport, "seconds_saved", lambda _: 9.0)
    assert report.speedup() == 1.9
    assert "95% of the planned speed" in report.sentence()
    report.promised = 0.0
    assert "planned speed" not in report.sentence()

"""Benchmarks that time several runs at once, which take turns after every step."""

from __future__ import annotations

import time
from types import ModuleType
from typing import Any

import pytest

from benchmark_script import benchmark_script


@pytest.fixture(scope="module")
def turns() -> ModuleType:
    return benchmark_script("turns")


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time, which passes only where a run says so."""
    now = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    return now


class Demo:
    """Notes its steps in a list that it shares with others."""

    between_steps: Any = None

    def __init__(self, turns: ModuleType, name: str, steps: list[str], clock: list[float]) -> None:
        self.turns, self.name, self.steps, self.clock = turns, name, steps, clock

    def sample(self, seconds: float, count: int = 3, fails: bool = False) -> Any:
        laps = self.turns.Laps(self.between_steps)
        for _ in range(count):
            self.clock[0] += seconds
            self.steps.append(self.name)
            laps()
        if fails:
            raise ValueError(self.name)
        taken = laps.taken()
        return self.turns.Sample(None, sum(taken), count, taken)


def test_every_run_makes_a_step_then_the_next_run(turns: ModuleType, clock: list[float]) -> None:
    steps: list[str] = []
    a, b = (Demo(turns, name, steps, clock) for name in "ab")
    slow, quick = turns.in_turns([a, b], [lambda: a.sample(0.5, 4), lambda: b.sample(0.25, 2)])
    assert a.between_steps is b.between_steps is None, "runs that come later take no turns"
    assert "".join(steps) == "ababaa"
    # Waiting for the other one is nobody's time.
    assert slow.laps == (0.5, 0.5, 0.5, 0.5, 0.0) and slow.seconds == 2.0
    assert quick.laps == (0.25, 0.25, 0.0)


def test_ways_are_sampled_beside_the_full_run(turns: ModuleType, clock: list[float]) -> None:
    steps: list[str] = []
    demos = [Demo(turns, name, steps, clock) for name in "ab"]
    for demo, seconds in zip(demos, (2.0, 4.0), strict=True):
        demo.model = seconds
    found = turns.beside_full(demos, {"half": lambda model: model / 2}, (1,), rounds=2)
    assert "".join(steps) == "abba", "the order turns round"
    times = {name: [sample.laps[0] for sample in samples] for name, samples in found.items()}
    assert times == {turns.FULL: [2.0, 2.0], "half": [2.0, 2.0]}


def test_a_run_that_fails_stops_nobody(turns: ModuleType, clock: list[float]) -> None:
    steps: list[str] = []
    a, b = (Demo(turns, name, steps, clock) for name in "ab")
    with pytest.raises(ValueError, match="b"):
        turns.in_turns([a, b], [lambda: a.sample(0.0), lambda: b.sample(0.0, 1, fails=True)])
    assert "".join(steps) == "abaa"


def test_a_typical_run_takes_the_median_of_every_step(turns: ModuleType) -> None:
    runs = [(1.0, 2.0, 9.0), (1.0, 5.0, 3.0), (7.0, 2.0, 3.0)]
    samples = [turns.Sample(None, sum(laps), 2, laps) for laps in runs]
    assert turns.typical(samples) == 6.0
    with pytest.raises(ValueError):
        turns.typical([*samples, turns.Sample(None, 1.0, 1, (1.0,))])

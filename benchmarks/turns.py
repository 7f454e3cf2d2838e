"""Timing runs side by side: what a run took, runs that take turns, pairs with a full run."""

from __future__ import annotations

import functools
import statistics
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch


def synchronize() -> None:
    """Wait for queued work, so that clocks see it."""
    import torch

    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


@dataclass(frozen=True)
class Sample:
    """One sampling run: its latent ``[1, C, H, W]`` and the seconds of the whole run."""

    latent: torch.Tensor
    seconds: float
    evaluations: int
    """Calls of the model, accelerated or not."""
    laps: tuple[float, ...] = ()
    """The same seconds step by step, of the samplers that tell of each."""


class Laps:
    """A sampler's callback that stops the time of every step, less what comes between steps."""

    def __init__(self, between: Callable[[], None]) -> None:
        self._between = between
        self._taken: list[float] = []
        self._since = time.perf_counter()

    def __call__(self, *_: Any) -> None:
        synchronize()
        self._taken.append(time.perf_counter() - self._since)
        self._between()
        self._since = time.perf_counter()

    def taken(self) -> tuple[float, ...]:
        """Seconds of each step, and of what came after the last callback."""
        return (*self._taken, time.perf_counter() - self._since)


def typical(samples: Sequence[Sample]) -> float:
    """Seconds of a run whose every step takes the median of these runs.

    The runs must compute in the same steps, as those of one prompt and seed do.
    """
    return sum(map(statistics.median, zip(*(sample.laps for sample in samples), strict=True)))


def in_turns(demos: Sequence[Any], runs: Sequence[Callable[[], Sample]]) -> list[Sample]:
    """Sample with several demos at once, which take turns after every step.

    Shared machines are slower or faster by a tenth for seconds at a time; what differs by less is
    told apart only where it is timed at the same moment. Each run needs a demo of its own.
    """
    order = deque(range(len(runs)))
    changed = threading.Condition()

    def wait(me: int) -> None:
        changed.wait_for(lambda: order[0] == me)

    def pass_on(me: int) -> None:
        with changed:
            order.rotate(-1)
            changed.notify_all()
            wait(me)

    def one(me: int) -> Sample:
        demos[me].between_steps = lambda: pass_on(me)
        with changed:
            wait(me)
        try:
            return runs[me]()
        finally:
            del demos[me].between_steps
            with changed:
                order.popleft()
                changed.notify_all()

    with ThreadPoolExecutor(len(runs)) as pool:
        return list(pool.map(one, range(len(runs))))


def rounds_in_turns(
    demos: Sequence[Any], runs: Mapping[str, Callable[[], Sample]], rounds: int
) -> dict[str, list[Sample]]:
    """Some rounds of runs that take turns, the order reversed in every other one; by name."""
    names = list(runs)
    found: dict[str, list[Sample]] = {name: [] for name in names}
    for index in range(rounds):
        order = list(range(len(names)))[:: -1 if index % 2 else 1]
        samples = in_turns([demos[i] for i in order], [runs[names[i]] for i in order])
        for i, sample in zip(order, samples, strict=True):
            found[names[i]].append(sample)
    return found


FULL = "full"
"""Name of the run that others are compared with."""


def beside_full(
    demos: Sequence[Any], ways: Mapping[str, Callable[[Any], Any]], run: Sequence[Any], rounds: int
) -> dict[str, list[Sample]]:
    """Rounds of the full run and of ways to accelerate a model, in turns; by name.

    ``demos`` are one more than the ways; ``run`` is what their ``sample`` takes after the model.
    """
    makes = {FULL: lambda model: model, **ways}
    runs = {
        name: functools.partial(demo.sample, make(demo.model), *run)
        for (name, make), demo in zip(makes.items(), demos, strict=True)
    }
    return rounds_in_turns(demos, runs, rounds)


Run = Callable[[int], Sample]
"""Samples something; takes the number of the round, which chooses prompt and seed."""


def in_rounds(
    full: Run, others: Sequence[Run], rounds: int, together: int = 2
) -> list[list[tuple[Sample, Sample]]]:
    """Of each other run pairs with the full run just before or after it, one pair a round.

    ``together`` runs share a full one. It comes first, in the middle, last, … of them.
    """
    pairs: list[list[tuple[Sample, Sample]]] = [[] for _ in others]
    for index in range(rounds):
        for begin in range(0, len(others), together):
            chunk = list(range(begin, min(begin + together, len(others))))
            place = index % (len(chunk) + 1)
            order = [*chunk[:place], None, *chunk[place:]]
            samples = {i: (full if i is None else others[i])(index) for i in order}
            for i in chunk:
                pairs[i].append((samples[None], samples[i]))
    return pairs


def speed_of(pairs: Sequence[tuple[Sample, Sample]]) -> dict[str, float]:
    """``seconds``, the median of the accelerated runs, and ``speedup``, that of the ratios."""
    return {
        "seconds": statistics.median(quick.seconds for _, quick in pairs),
        "speedup": statistics.median(full.seconds / quick.seconds for full, quick in pairs),
    }

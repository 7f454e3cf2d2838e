"""What Profile Sampling costs where it is not used, and where it is, on the demo model.

Every variant is paired with the plain model sampled just before it in the same round:

- ``plain again``: the same model once more, which shows how far two equal runs differ by chance.
- ``node at 0``: behind the node with ``evaluations`` 0.
- ``after a profiled run``: the plain model right after a run with the node, which shows whether
  anything stays on.
- ``untraced evaluations``, ``traced evaluations``: with the node, outside and inside its trace.

Beside that, the time of what a caching run carries for the profiler when there is none: two
ranges an evaluation that do nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import timeit
from pathlib import Path
from typing import Any

import harness
import overhead

TRACED = 3
RANGES_AN_EVALUATION = 2


def profiled(model: Any, evaluations: int) -> Any:
    """The model behind Profile Sampling."""
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.profiling.profiler import ProfileSettings

    return host.profile(model, ProfileSettings(evaluations=evaluations), "profile/benchmark")


class Clock(overhead.Variant):
    """A model whose evaluations are timed from outside everything else, behind the node or not."""

    def __init__(self, model: Any, evaluations: int | None = None) -> None:
        super().__init__(model)
        if evaluations is not None:
            self.model = profiled(self.model, evaluations)


def measure(demo: harness.Demo, cfg: float, steps: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of one guidance scale."""
    plain, again, after = Clock(demo.model), Clock(demo.model), Clock(demo.model)
    off, traced = Clock(demo.model, 0), Clock(demo.model, TRACED)
    pairs: dict[str, list[tuple[float, float]]] = {}

    def note(name: str, seconds: float, reference: float) -> None:
        pairs.setdefault(name, []).append((seconds, reference))

    for index in range(rounds + 1):
        turn: list[tuple[str, float, float]] = []
        for name, variant in (("plain again", again), ("node at 0", off)):
            reference = plain.round(demo, cfg, steps)
            turn.append((name, variant.round(demo, cfg, steps), reference))
        reference = plain.round(demo, cfg, steps)
        traced.round(demo, cfg, steps)
        # The second evaluation starts the profiler, the one behind the traced ones stops it; both
        # are seen from outside with that in them.
        inside, outside = traced.seconds[2 : 1 + TRACED], traced.seconds[2 + TRACED :]
        turn.append(("untraced evaluations", statistics.median(outside), reference))
        turn.append(("traced evaluations", statistics.median(inside), reference))
        turn.append(("after a profiled run", after.round(demo, cfg, steps), reference))
        if index:  # the first round only warms up
            for entry in turn:
                note(*entry)
    return [row(name, cfg, found) for name, found in pairs.items()]


def row(name: str, cfg: float, pairs: list[tuple[float, float]]) -> dict[str, Any]:
    """Medians, and the middle half of the ratios."""
    ratios = [seconds / reference for seconds, reference in pairs]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return harness.rounded(
        {
            "variant": name,
            "cfg": cfg,
            "plain_ms": 1000 * statistics.median(reference for _, reference in pairs),
            "ms": 1000 * statistics.median(seconds for seconds, _ in pairs),
            "ratio": middle,
            "ratio_low": low,
            "ratio_high": high,
        },
        5,
    )


def idle_ranges() -> float:
    """Milliseconds an evaluation that ranges take in a caching run that nobody profiles."""
    from dit_acceleration_pack.acceleration.timing import unmarked

    def ranges() -> None:
        with unmarked("decision"):
            pass

    number = 100_000
    seconds = min(timeit.repeat(ranges, number=number, repeat=5)) / number
    return 1000 * seconds * RANGES_AN_EVALUATION


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=20, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=9, help="evaluations a run: %(default)s")
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0], help="default: 1")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "profiler.json")


def main(options: argparse.Namespace, environment: Any) -> int:
    import folder_paths

    demo = harness.Demo()
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        folder_paths.set_output_directory(folder)  # Traces are of no use afterwards.
        for cfg in options.cfg:
            rows += measure(demo, cfg, options.steps, options.rounds)
    harness.show(*rows)
    data = {
        "environment": harness.describe(environment),
        "rounds": options.rounds,
        "evaluations_a_run": options.steps,
        "idle_ranges_ms_an_evaluation": round(idle_ranges(), 6),
        "rows": rows,
    }
    harness.write(options.output, data)
    return 0


if __name__ == "__main__":
    harness.run(__file__, add_options, main)

"""What the acceleration itself costs, on the demo model.

(a) Nothing skipped: a threshold that no change is below, so that every evaluation is watched,
    measured and remembered, against the plain model.
(b) A skipped evaluation, against the same model built with only the Fn + Bn blocks that a skipped
    evaluation runs.

Measured is the time that one evaluation takes at the outermost place where a wrapper can see it
(APPLY_MODEL), in short sampling runs of all variants in turn. A run counts as the median of its
evaluations, and every figure is the median over the rounds of a ratio within one round.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import harness

# So close together that nothing changes much from step to step: every variant sees the same.
FIRST_SIGMA, LAST_SIGMA = 0.5, 0.4
PROMPT, SEED = 0, 1
KEY = "benchmark_clock"

NEVER = {"max_warmup_steps": 1, "residual_diff_threshold": 1e-9}
# Every evaluation but the first is skipped, and its change is measured all the same.
ALWAYS = {
    "max_warmup_steps": 1,
    "residual_diff_threshold": 0.99,
    "max_continuous_cached_steps": -1,
}
SKIPPING: dict[str, Mapping[str, Any]] = {
    "no forecast": ALWAYS,
    "static mask": {
        **ALWAYS,
        "scm_policy": "static",
        "scm_compute_bins": "1",
        "scm_cache_bins": "{rest}",
    },
    "taylorseer": {**ALWAYS, "calibrator": "taylorseer"},
    "trajectory": {**ALWAYS, "calibrator": "trajectory"},
    "no forecast, Bn 1": {**ALWAYS, "Bn_compute_blocks": 1},
}


class Variant:
    """A model whose evaluations are timed from outside everything else."""

    def __init__(self, model: Any, **settings: Any) -> None:
        from comfy.patcher_extension import WrappersMP

        timed = model.clone()
        self.seconds: list[float] = []
        # Wrappers run in the order in which they were added, the first one outermost.
        timed.add_wrapper_with_key(WrappersMP.APPLY_MODEL, KEY, self._clock)
        self.model = harness.accelerate(timed, **settings) if settings else timed

    def _clock(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        harness.synchronize()
        began = time.perf_counter()
        output = executor(*args, **kwargs)
        harness.synchronize()
        self.seconds.append(time.perf_counter() - began)
        return output

    def round(self, demo: harness.Demo, cfg: float, steps: int) -> float:
        """Median seconds of one run's evaluations after the first, which never skips."""
        import torch

        self.seconds.clear()
        sigmas = torch.linspace(FIRST_SIGMA, LAST_SIGMA, steps + 1)
        demo.sample_sigmas(self.model, demo.prompts[PROMPT], SEED, cfg, sigmas, "euler")
        return statistics.median(self.seconds[1:])


def truncated(demo: harness.Demo, first: int, last: int) -> Any:
    """The demo model built with only its first and last blocks."""
    import torch

    model = demo.load()
    network = model.model.diffusion_model
    double, single = list(network.double_blocks), list(network.single_blocks)
    network.double_blocks = torch.nn.ModuleList(double[:first])
    network.single_blocks = torch.nn.ModuleList(single[len(single) - last :])
    return model


def measure(demo: harness.Demo, cfg: float, steps: int, rounds: int) -> list[dict[str, Any]]:
    """Rows of one guidance scale: nothing skipped, then every way to skip."""
    plain = Variant(demo.model)
    watched = Variant(demo.model, **NEVER)
    short = {last: Variant(truncated(demo, 1, last)) for last in (0, 1)}
    skipping = {}
    for name, settings in SKIPPING.items():
        filled = {
            k: v.format(rest=steps - 1) if isinstance(v, str) else v for k, v in settings.items()
        }
        skipping[name] = Variant(demo.model, **filled)
    variants = [plain, watched, *short.values(), *skipping.values()]
    times: dict[Variant, list[float]] = {variant: [] for variant in variants}
    for index in range(rounds + 1):
        # Back and forth, so that no variant always follows the same one.
        for variant in variants if index % 2 else reversed(variants):
            seconds = variant.round(demo, cfg, steps)
            if index:  # the first round only warms up
                times[variant].append(seconds)
    check(watched, skipping, steps)

    def ratio(top: Variant, bottom: Variant) -> float:
        pairs = zip(times[top], times[bottom], strict=True)
        return statistics.median(a / b for a, b in pairs)

    def row(kind: str, settings: str, variant: Variant, other: Variant) -> dict[str, Any]:
        extra = [
            (a - b) / full
            for a, b, full in zip(times[variant], times[other], times[plain], strict=True)
        ]
        return {
            "kind": kind,
            "settings": settings,
            "cfg": cfg,
            "full_ms": 1000 * statistics.median(times[plain]),
            "ms": 1000 * statistics.median(times[variant]),
            "compared_ms": 1000 * statistics.median(times[other]),
            "share_of_full": ratio(variant, plain),
            "compared_share_of_full": ratio(other, plain),
            "extra_share_of_full": statistics.median(extra),
        }

    rows = [row("nothing skipped", "threshold 1e-9", watched, plain)]
    for name, variant in skipping.items():
        last = SKIPPING[name].get("Bn_compute_blocks", 0)
        rows.append(row("skipped evaluation", name, variant, short[last]))
    return [harness.rounded(r, 5) for r in rows]


def check(watched: Variant, skipping: Mapping[str, Variant], steps: int) -> None:
    """The variants did what they stand for."""
    assert harness.report_of(watched.model).skipped == 0
    for name, variant in skipping.items():
        report = harness.report_of(variant.model)
        assert report.skipped == steps - 1, f"{name}: {report.sentence()}"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=40, help="default: %(default)s")
    parser.add_argument("--steps", type=int, default=9, help="evaluations a run: %(default)s")
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 3.0], help="default: 1 3")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "overhead.json")


def main(options: argparse.Namespace, environment: Any) -> int:
    demo = harness.Demo()
    rows: list[dict[str, Any]] = []
    for cfg in options.cfg:
        rows += measure(demo, cfg, options.steps, options.rounds)
    data = {
        "environment": harness.describe(environment),
        "rounds": options.rounds,
        "evaluations_a_run": options.steps,
        "rows": rows,
    }
    harness.show(*rows)
    harness.write(options.output, data)
    return 0


if __name__ == "__main__":
    harness.run(__file__, add_options, main)

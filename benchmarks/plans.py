#!/usr/bin/env python3
"""The shipped plan beside simpler ones with the same forecast and corrector, on four models.

For every number of computed evaluations, every way is sampled for the same prompts and seeds and
compared with the full run of the same noise:

- ``plan``: what Performance Mode does when it may compute so many;
- ``uniform``: evenly spread over the steps, the first and the last among them;
- ``lengths``: evenly spread over the plan's own lengths of steps, with no dynamic programming;
- ``plain``: plain sampling with so many steps.

``psnr`` is the mean over the pictures, on the latents (peak: range of the full run's latent),
``worst`` the least of them and ``worst_of`` its prompt and seed; ``ssim`` is the mean on the
decoded pictures. Two of the models are the demo's, which the plan was tuned on. The other two are
check models: nothing is tuned on them.

Rows are written as they come, so ``--resume`` goes on after an interruption. Nothing is timed, so
a busy machine does no harm. ``--quick`` measures fewer counts and pictures.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import checks
import harness
import performance

FIRST_SEED = 4000
DEMOS: Mapping[str, Callable[[], Any]] = {**checks.CHECKS, **performance.DEMOS}
PICTURES, QUICK_PICTURES = 16, 8
FEWEST = 6
QUICK_COUNTS = (6, 8, 10, 12, 14, 16, 20, 24)
KEYS = ("model", "sampler", "steps", "cfg", "way", "count")

Row = dict[str, Any]
Choose = Callable[[Sequence[float], int], set[int]]
"""Which steps to compute, from the lengths of all and how many."""


def uniform(lengths: Sequence[float], count: int) -> set[int]:
    last = len(lengths) - 1
    return {round(i * last / (count - 1)) for i in range(count)}


def by_length(lengths: Sequence[float], count: int) -> set[int]:
    """The first and the last step, and between them so many in equal parts of the way."""
    places = list(itertools.accumulate(lengths[:-1], initial=0.0))
    chosen, last = [0], len(lengths) - 1
    for i in range(1, count):
        goal = places[-1] * i / (count - 1)
        nearest = min(range(last + 1), key=lambda step: abs(places[step] - goal))
        # Those that follow must still find a place each.
        chosen.append(min(max(nearest, chosen[-1] + 1), last - (count - 1 - i)))
    return set(chosen)


SPREADS: dict[str, Choose] = {"uniform": uniform, "lengths": by_length}
WAYS = ("plan", *SPREADS, "plain")


def spread(choose: Choose, count: int) -> Any:
    """A technique that computes chosen steps, in all else as Performance Mode."""
    from dit_acceleration_pack.acceleration.policies.base import Decision, Policy
    from dit_acceleration_pack.acceleration.policies.cost import FIRST_BLOCKS
    from dit_acceleration_pack.acceleration.policies.plan import step_lengths
    from dit_acceleration_pack.acceleration.policies.planned import Planned

    class Chosen(Policy):
        first_blocks = FIRST_BLOCKS

        def __init__(self, steps: set[int]) -> None:
            self.steps = steps

        def decide(self, step: int, seen: Any, blocked: str | None) -> Decision:
            return Decision(blocked is None and step not in self.steps, blocked or "planned")

    class Spread(Planned):
        def open(self, info: Any) -> Policy:  # type: ignore[override]
            return Chosen(choose(step_lengths(info.schedule.within), count))

    return Spread(1.0, "a benchmark's", strict=True)


def planned(model: Any, count: int, steps: int) -> Any:
    """Performance Mode's technique, asked for what makes it compute so many of the steps."""
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies.cost import skipped_cost
    from dit_acceleration_pack.acceleration.policies.planned import Planned

    cost = skipped_cost(host.structure_of(model), host.network_of(model))
    share = count / steps
    return Planned(1.0 / (cost + share * (1.0 - cost)), "a benchmark's", strict=True)


class Bench:
    """One model, and its full runs that all are compared with."""

    def __init__(self, name: str, pictures: int) -> None:
        self.name, self.demo = name, DEMOS[name]()
        prompts = self.demo.prompts
        self.runs = [
            (prompts[i % len(prompts)], FIRST_SEED + i // len(prompts)) for i in range(pictures)
        ]
        self.full: dict[tuple[str, int, float], list[Any]] = {}

    def model_for(self, way: str, count: int, steps: int) -> Any:
        from dit_acceleration_pack.acceleration import host

        model = self.demo.model
        if way == "plain":
            return model
        technique = planned(model, count, steps) if way == "plan" else spread(SPREADS[way], count)
        return host.attach(model, technique)

    def baseline(self, sampler: str, steps: int, cfg: float) -> list[Any]:
        key = (sampler, steps, cfg)
        if key not in self.full:
            self.full[key] = [
                self.demo.sample(self.demo.model, *run, cfg, steps, sampler).latent
                for run in self.runs
            ]
        return self.full[key]

    def row(self, way: str, count: int, sampler: str, steps: int, cfg: float) -> Row:
        model = self.model_for(way, count, steps)
        own = count if way == "plain" else steps
        near, alike, computed = [], [], []
        for run, full in zip(self.runs, self.baseline(sampler, steps, cfg), strict=True):
            sample = self.demo.sample(model, *run, cfg, own, sampler)
            near.append(harness.psnr(full, sample.latent))
            alike.append(harness.ssim(self.demo.picture(full), self.demo.picture(sample.latent)))
            computed.append(
                sample.evaluations if way == "plain" else harness.report_of(model).computed
            )
        worst = min(range(len(near)), key=near.__getitem__)
        prompt, seed = self.runs[worst]
        return {
            "model": self.name, "sampler": sampler, "steps": steps, "cfg": cfg, "way": way,
            "count": count, "computed": statistics.fmean(computed),
            "psnr": statistics.fmean(near), "worst": near[worst],
            "worst_of": f"{prompt}, {seed}", "ssim": statistics.fmean(alike),
            "pictures": len(near),
        }  # fmt: skip


def wanted(options: argparse.Namespace, name: str) -> Iterator[tuple[str, int, str, int, float]]:
    for sampler, steps, cfg in itertools.product(options.samplers, options.steps, options.cfg):
        counts = options.counts or range(FEWEST, steps)
        for count, way in itertools.product(counts, options.ways):
            if count < steps:
                yield way, count, sampler, steps, cfg


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=list(DEMOS), choices=list(DEMOS))
    parser.add_argument("--pictures", type=int, default=PICTURES, help="default: %(default)s")
    parser.add_argument("--steps", type=int, nargs="+", default=[28])
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--samplers", nargs="+", default=["euler"])
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--counts", type=int, nargs="+", help="default: 6 to steps - 1")
    parser.add_argument("--quick", action="store_true", help="fewer counts and pictures")
    parser.add_argument("--resume", action="store_true", help="keep rows of the output file")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "plans.json")


def main(options: argparse.Namespace, environment: Any) -> int:
    if options.quick:
        options.pictures = min(options.pictures, QUICK_PICTURES)
        options.counts = options.counts or QUICK_COUNTS
    data: dict[str, Any] = {"environment": harness.describe(environment), "rows": []}
    if options.resume and options.output.exists():
        before = json.loads(options.output.read_text(encoding="utf-8"))["rows"]
        data["rows"] = [row for row in before if row["pictures"] >= options.pictures]
    known = {tuple(row[key] for key in KEYS) for row in data["rows"]}
    for name in options.models:
        missing = [
            (way, count, sampler, steps, cfg)
            for way, count, sampler, steps, cfg in wanted(options, name)
            if (name, sampler, steps, cfg, way, count) not in known
        ]
        bench = Bench(name, options.pictures) if missing else None
        for done, parts in enumerate(missing, 1):
            assert bench is not None
            row = harness.rounded(bench.row(*parts))
            data["rows"].append(row)
            harness.write(options.output, data, tell=False)
            harness.say(f"{name} {done}/{len(missing)} {json.dumps(row)}")
    return 0


if __name__ == "__main__":
    harness.run(__file__, add_options, main)

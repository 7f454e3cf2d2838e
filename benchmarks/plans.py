#!/usr/bin/env python3
"""The shipped plan beside simpler ones with the same forecast and corrector, on four models.

For every number of computed evaluations, every way is sampled for the same prompts and seeds and
compared with the full run of the same noise:

- ``plan``: what Performance Mode does when it may compute so many;
- ``uniform``: evenly spread over the steps, the first and the last among them;
- ``lengths``: evenly spread over the plan's own lengths of steps, with no dynamic programming;
- ``recorded``, ``spectrum``, ``average velocity``: the rivals of ``rivals.py``, the first one with
  the pack's own forecast and a plan from runs of two other seeds;
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
import contextlib
import itertools
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import checks
import harness
import performance
import rivals

if TYPE_CHECKING:
    import torch

FIRST_SEED = 4000
RECORDED_SEEDS = (9000, 9001)
"""Of the runs that ``recorded`` and ``average velocity`` plan by, a prompt each."""
DEMOS: Mapping[str, Callable[[], Any]] = {**checks.CHECKS, **performance.DEMOS}
PICTURES, QUICK_PICTURES = 16, 8
FEWEST = 6
QUICK_COUNTS = (6, 8, 10, 12, 14, 16, 20, 24)
KEYS = ("model", "sampler", "steps", "cfg", "way", "count", "pictures")

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
RECORDED, SPECTRUM, AVERAGE = "recorded", "spectrum", "average velocity"
WAYS = ("plan", *SPREADS, RECORDED, SPECTRUM, AVERAGE, "plain")


def chosen_steps(steps: set[int]) -> Any:
    """A technique that computes chosen steps, in all else as Performance Mode."""
    from dit_acceleration_pack.acceleration.policies.base import Decision, Policy
    from dit_acceleration_pack.acceleration.policies.cost import FIRST_BLOCKS
    from dit_acceleration_pack.acceleration.policies.planned import Planned

    class Chosen(Policy):
        first_blocks = FIRST_BLOCKS

        def decide(self, step: int, seen: Any, blocked: str | None) -> Decision:
            return Decision(blocked is None and step not in steps, blocked or "planned")

    class Spread(Planned):
        def open(self, info: Any) -> Policy:  # type: ignore[override]
            return Chosen()

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
        self.known_costs: dict[tuple[str, str, int, float], torch.Tensor] = {}

    def steps_of(self, way: str, count: int, sampler: str, steps: int, cfg: float) -> set[int]:
        """Which steps a way computes whose plan is known before the run."""
        from dit_acceleration_pack.acceleration.policies.plan import step_lengths

        if way in SPREADS:
            return SPREADS[way](step_lengths(self.demo.sigmas(steps).tolist()), count)
        if way == SPECTRUM:
            return rivals.growing_windows(steps, count)
        return rivals.shortest_path(self.costs(way, sampler, steps, cfg), count)

    def costs(self, way: str, sampler: str, steps: int, cfg: float) -> torch.Tensor:
        """What gaps cost by the runs that are recorded for it."""
        from dit_acceleration_pack.acceleration import host

        key = (way, sampler, steps, cfg)
        if key not in self.known_costs:
            residuals: list[rivals.Recording] = []
            paths: list[Any] = []
            for prompt, seed in zip(self.demo.prompts, RECORDED_SEEDS, strict=False):
                found: list[rivals.Recording] = []
                model, path = rivals.watched(self.demo.model)
                model = host.attach(model, chosen_steps(set(range(steps))))
                with rivals.forecasts(rivals.recording(found)):
                    self.demo.sample(model, prompt, seed, cfg, steps, sampler)
                residuals += found
                paths.append(path)
            sigmas = self.demo.sigmas(steps).tolist()
            self.known_costs[RECORDED, sampler, steps, cfg] = rivals.gap_costs(residuals, sigmas)
            self.known_costs[AVERAGE, sampler, steps, cfg] = rivals.leap_costs(paths, sigmas)
        return self.known_costs[key]

    def samples(
        self, way: str, count: int, sampler: str, steps: int, cfg: float
    ) -> Iterator[tuple[Any, float]]:
        """What a way makes of every picture, and how many evaluations it computed."""
        from dit_acceleration_pack.acceleration import host

        model, own = self.demo.model, steps
        with contextlib.ExitStack() as stack:
            if way == "plain":
                own = count
            elif way == "plan":
                model = host.attach(model, planned(model, count, steps))
            else:
                chosen = self.steps_of(way, count, sampler, steps, cfg)
                if way == AVERAGE:
                    sampler = rivals.register(rivals.leaping(sorted(chosen)))
                else:
                    model = host.attach(model, chosen_steps(chosen))
            if way == SPECTRUM:
                stack.enter_context(rivals.forecasts(rivals.spectrum(steps)))
            for run in self.runs:
                sample = self.demo.sample(model, *run, cfg, own, sampler)
                skips = way not in ("plain", AVERAGE)
                yield sample, harness.report_of(model).computed if skips else sample.evaluations

    def baseline(self, sampler: str, steps: int, cfg: float) -> list[Any]:
        key = (sampler, steps, cfg)
        if key not in self.full:
            self.full[key] = [
                self.demo.sample(self.demo.model, *run, cfg, steps, sampler).latent
                for run in self.runs
            ]
        return self.full[key]

    def row(self, way: str, count: int, sampler: str, steps: int, cfg: float) -> Row:
        near, alike, computed = [], [], []
        pairs = zip(
            self.samples(way, count, sampler, steps, cfg),
            self.baseline(sampler, steps, cfg),
            strict=True,
        )
        for (sample, spent), full in pairs:
            near.append(harness.psnr(full, sample.latent))
            alike.append(harness.ssim(self.demo.picture(full), self.demo.picture(sample.latent)))
            computed.append(spent)
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
    data = harness.begun(options, environment)
    known = {tuple(row[key] for key in KEYS) for row in data["rows"]}
    for name in options.models:
        missing = [
            (way, count, sampler, steps, cfg)
            for way, count, sampler, steps, cfg in wanted(options, name)
            if (name, sampler, steps, cfg, way, count, options.pictures) not in known
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

#!/usr/bin/env python3
"""The shipped plan beside simpler ones with the same forecast and corrector, on four models.

For every number of computed evaluations, every way is sampled for the same prompts and seeds and
compared with the full run of the same noise:

- ``plan``: what Performance Mode does when it may compute so many;
- ``uniform``: evenly spread over the evaluations, the first and the last among them;
- ``lengths``: evenly spread over the plan's own lengths of steps, with no dynamic programming;
- ``recorded``, ``spectrum``, ``average velocity``: the rivals of ``rivals.py``, the first one with
  the pack's own forecast and a plan from runs of two other seeds;
- ``plain``: plain sampling with so many steps.

``psnr`` is the mean over the pictures, on the latents (peak: range of the full run's latent),
``worst`` the least of them and ``worst_of`` its prompt and seed; ``ssim`` is the mean on the
decoded pictures. Two of the models are the demo's, which the plan was tuned on. The other two are
check models: nothing is tuned on them.

With euler and 28 steps every way is measured, the plan at every count; with other samplers and
numbers of steps the plan and the uniform one. Rows are written as they come, so ``--resume`` goes
on after an interruption. Nothing is timed, so a busy machine does no harm, and ``--jobs`` processes
of one thread share the work.
"""

from __future__ import annotations

import argparse
import contextlib
import itertools
import json
import os
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
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
PICTURES, QUICK_PICTURES = 8, 4
BATCH = 8
"""So many pictures are rows of one batch; what is forecast is each one's own."""
FEWEST = 6
STEPS = 28
COUNTS = (6, 8, 10, 12, 14, 16, 20, 24)
SHARES = (0.25, 0.5, 0.75)
"""Of the steps that are computed, with other numbers of steps."""
SAMPLERS = ("euler", "dpmpp_2m", "heun", "res_multistep")
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


def chosen_evaluations(chosen: set[int]) -> Any:
    """A technique that computes chosen evaluations, counted from 0, in all else as Performance
    Mode."""
    from dit_acceleration_pack.acceleration.policies.base import Decision, Policy
    from dit_acceleration_pack.acceleration.policies.cost import FIRST_BLOCKS
    from dit_acceleration_pack.acceleration.policies.planned import Planned

    class Chosen(Policy):
        first_blocks = FIRST_BLOCKS

        def __init__(self) -> None:
            self._met = itertools.count()

        def decide(self, step: int, seen: Any, blocked: str | None) -> Decision:
            wanted = next(self._met) in chosen
            return Decision(blocked is None and not wanted, blocked or "planned")

    class Spread(Planned):
        def open(self, info: Any) -> Policy:  # type: ignore[override]
            return Chosen()

    return Spread(1.0, "a benchmark's", strict=True)


def planned(model: Any, count: int, steps: int) -> Any:
    """Performance Mode's technique, told how many of the steps to compute."""
    from dit_acceleration_pack.acceleration.policies.planned import Planned

    class Counted(Planned):
        def share(self, info: Any) -> float:
            return count / steps

    return Counted(1.0, "a benchmark's", strict=True)


class Bench:
    """One model, and its full runs that all are compared with."""

    def __init__(self, name: str, pictures: int) -> None:
        self.name, self.demo = name, DEMOS[name]()
        prompts = self.demo.prompts
        self.runs = [
            (prompts[i % len(prompts)], FIRST_SEED + i // len(prompts)) for i in range(pictures)
        ]
        self.batches = [self.runs[i : i + BATCH] for i in range(0, pictures, BATCH)]
        self.full: dict[tuple[str, int, float], list[torch.Tensor]] = {}
        self.known_costs: dict[tuple[str, str, int, float], torch.Tensor] = {}

    def evaluations_of(
        self, way: str, count: int, sampler: str, steps: int, cfg: float
    ) -> set[int]:
        """Which evaluations a way computes whose plan is known before the run."""
        from dit_acceleration_pack.acceleration.policies.plan import (
            EVALUATIONS_PER_STEP,
            step_lengths,
        )

        each = EVALUATIONS_PER_STEP.get(sampler, 1)
        if way in SPREADS:
            *lengths, last = step_lengths(self.demo.sigmas(steps).tolist())
            spread = [length / each for length in lengths for _ in range(each)] + [last]
            return SPREADS[way](spread, round(count * len(spread) / steps))
        if each > 1:
            raise ValueError(f"{way} plans steps, and {sampler} evaluates more than once in one")
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
                model = host.attach(model, chosen_evaluations(set(range(steps))))
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
    ) -> Iterator[tuple[torch.Tensor, float]]:
        """The latent that a way makes of every picture, and how many evaluations it computed."""
        from dit_acceleration_pack.acceleration import host

        model, own = self.demo.model, steps
        with contextlib.ExitStack() as stack:
            if way == "plain":
                own = count
            elif way == "plan":
                model = host.attach(model, planned(model, count, steps))
            else:
                chosen = self.evaluations_of(way, count, sampler, steps, cfg)
                if way == AVERAGE:
                    sampler = rivals.register(rivals.leaping(sorted(chosen)))
                else:
                    model = host.attach(model, chosen_evaluations(chosen))
            if way == SPECTRUM:
                stack.enter_context(rivals.forecasts(rivals.spectrum(steps)))
            for runs in self.batches:
                sample = self.demo.sample_batch(model, runs, cfg, self.demo.sigmas(own), sampler)
                skips = way not in ("plain", AVERAGE)
                spent = harness.report_of(model).computed if skips else sample.evaluations
                for latent in sample.latent.split(1):
                    yield latent, spent

    def baseline(self, sampler: str, steps: int, cfg: float) -> list[torch.Tensor]:
        key = (sampler, steps, cfg)
        if key not in self.full:
            model, sigmas = self.demo.model, self.demo.sigmas(steps)
            batches = [
                self.demo.sample_batch(model, runs, cfg, sigmas, sampler) for runs in self.batches
            ]
            self.full[key] = [row for batch in batches for row in batch.latent.split(1)]
        return self.full[key]

    def row(self, way: str, count: int, sampler: str, steps: int, cfg: float) -> Row:
        near, alike, computed = [], [], []
        pairs = zip(
            self.samples(way, count, sampler, steps, cfg),
            self.baseline(sampler, steps, cfg),
            strict=True,
        )
        for (latent, spent), full in pairs:
            near.append(harness.psnr(full, latent))
            alike.append(harness.ssim(self.demo.picture(full), self.demo.picture(latent)))
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


Part = tuple[str, int, str, int, float]
"""A way, how many it computes, sampler, steps, and cfg: one row of a model."""


def wanted(options: argparse.Namespace) -> Iterator[Part]:
    """What is measured of every model, where it was not said otherwise."""
    for sampler, steps, cfg in itertools.product(options.samplers, options.steps, options.cfg):
        all_ways = WAYS if (sampler, steps) == ("euler", STEPS) else ("plan", "uniform")
        for way in options.ways or all_ways:
            for count in options.counts or counts_of(way, steps, options.quick):
                if count < steps:
                    yield way, count, sampler, steps, cfg


def counts_of(way: str, steps: int, quick: bool) -> Sequence[int]:
    """Every count for the plan at the usual number of steps, else a few."""
    if steps != STEPS:
        return [round(share * steps) for share in SHARES]
    return COUNTS if quick or way != "plan" else range(FEWEST, steps)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=list(DEMOS), choices=list(DEMOS))
    parser.add_argument("--pictures", type=int, default=PICTURES, help="default: %(default)s")
    parser.add_argument("--steps", type=int, nargs="+", default=[STEPS, 20, 50])
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--ways", nargs="+", choices=WAYS, help="default: all with euler")
    parser.add_argument("--counts", type=int, nargs="+", help="default: all, or a few")
    parser.add_argument("--quick", action="store_true", help="cfg 1, 28 steps, a few counts")
    parser.add_argument("--jobs", type=int, default=os.cpu_count(), help="processes: %(default)s")
    harness.add_results_options(parser, "plans")


def main(options: argparse.Namespace, environment: Any) -> int:
    if options.quick:
        options.steps, options.cfg = [STEPS], [1.0]
        options.pictures = min(options.pictures, QUICK_PICTURES)
    data = harness.begun(options, environment)
    known = {tuple(row[key] for key in KEYS) for row in data["rows"]}
    missing = {
        name: [
            (way, count, sampler, steps, cfg)
            for way, count, sampler, steps, cfg in wanted(options)
            if (name, sampler, steps, cfg, way, count, options.pictures) not in known
        ]
        for name in options.models
    }
    measure = measure_here if options.jobs == 1 else share_out
    total = sum(map(len, missing.values()))
    for done, row in enumerate(measure(missing, options), 1):
        data["rows"].append(row)
        harness.write(options.output, data, tell=False)
        harness.say(f"{done}/{total} {json.dumps(row)}")
    return 0


def measure_here(
    missing: Mapping[str, Sequence[Part]], options: argparse.Namespace
) -> Iterator[Row]:
    for name, parts in missing.items():
        bench = Bench(name, options.pictures)
        for part in parts:
            yield harness.rounded(bench.row(*part))


def share_out(missing: Mapping[str, Sequence[Part]], options: argparse.Namespace) -> Iterator[Row]:
    """The same in processes, one for all ways of a schedule that measure the same counts."""
    tasks: list[list[str]] = []
    for name, parts in missing.items():
        counts: dict[tuple[str, str, int, float], list[int]] = {}
        for way, count, *schedule in parts:
            counts.setdefault((*schedule, way), []).append(count)
        ways: dict[tuple[Any, ...], list[str]] = {}
        for (*schedule, way), found in counts.items():
            ways.setdefault((*schedule, *found), []).append(way)
        for (sampler, steps, cfg, *found), together in ways.items():
            chosen = {
                "models": [name], "samplers": [sampler], "steps": [steps], "cfg": [cfg],
                "ways": together, "counts": found, "pictures": [options.pictures], "jobs": [1],
            }  # fmt: skip
            tasks.append(
                [word for key, each in chosen.items() for word in (f"--{key}", *map(str, each))]
            )
    for rows in harness.in_processes(__file__, tasks, options):
        yield from rows


if __name__ == "__main__":
    harness.run(__file__, add_options, main)

#!/usr/bin/env python3
"""Presets on schedules that are not a long way down from pure noise.

- ``8 steps`` to ``12 steps``: short ones;
- ``from 0.3`` to ``from 0.7``: image to image, 28 steps of which begin in the middle of the noise,
  from a finished latent of another seed;
- ``rising``: 28 steps from a finished latent back to noise (unsampling), all but the last one, at
  whose end a flow model's latent would be divided by nothing;
- ``two experts``: 28 steps, the first 12 by one MODEL and the rest by another (here of the same
  weights), as Wan 2.2 is used.

Every preset is compared with the full run, and so is plain sampling of the same way with as many
steps as the preset computed (``plain``). PSNR is taken on the latents (peak: range of the full
run's latent); the mean over the pictures.
Nothing is timed, so a busy machine does no harm.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import harness
import performance
import plans

if TYPE_CHECKING:
    import torch

FIRST_SEED, OTHER_SEED = 8000, 8500
STEPS, SWITCH = 28, 12
SHORT, MIDDLE = (8, 10, 12), (0.3, 0.5, 0.7)
RISING, EXPERTS = "rising", "two experts"
CASES = (*(f"{n} steps" for n in SHORT), *(f"from {d:g}" for d in MIDDLE), RISING, EXPERTS)
LEAST_SIGMA = 1e-4
"""What the host's flipped schedules begin with instead of 0."""

KEYS = ("model", "case", "cfg", "preset")
Row = dict[str, Any]


class Way:
    """One case of one model: what is sampled, in how many steps, from what."""

    def __init__(self, demo: Any, case: str, cfg: float) -> None:
        self.demo, self.case, self.cfg = demo, case, cfg
        self.steps = int(case.split()[0]) if case.endswith("steps") else STEPS
        self._starts: dict[str, torch.Tensor] = {}

    def run(self, models: Sequence[Any], prompt: str, steps: int) -> torch.Tensor:
        """The latent that a way of so many steps leads to; two models are two experts."""
        sigmas = self.sigmas(steps)
        if self.case == EXPERTS:
            switch = max(round(SWITCH * steps / STEPS), 1)
            half = self.part(models[0], prompt, sigmas[: switch + 1])
            return self.part(models[-1], prompt, sigmas[switch:], half, add_noise=False)
        start = None if self.case.endswith("steps") else self.start(prompt)
        return self.part(models[0], prompt, sigmas, start, add_noise=self.case != RISING)

    def sigmas(self, steps: int) -> torch.Tensor:
        share = float(self.case.split()[1]) if self.case.startswith("from") else 1.0
        rising = self.case == RISING
        found = self.demo.sigmas(int(steps / share) + rising)[-(steps + 1) :]
        if rising:
            found = found.flip(0)
            found[0] = LEAST_SIGMA
        return found

    def start(self, prompt: str) -> torch.Tensor:
        """A finished latent of the prompt; to begin in the middle, that of another one."""
        prompts = self.demo.prompts
        if self.case != RISING:
            prompt = prompts[(prompts.index(prompt) + 1) % len(prompts)]
        if prompt not in self._starts:
            sample = self.demo.sample(self.demo.model, prompt, OTHER_SEED, self.cfg, STEPS)
            self._starts[prompt] = sample.latent
        return self._starts[prompt]

    def part(
        self,
        model: Any,
        prompt: str,
        sigmas: torch.Tensor,
        start: torch.Tensor | None = None,
        add_noise: bool = True,
    ) -> torch.Tensor:
        """Sample along some sigmas."""
        run = (model, prompt, FIRST_SEED, self.cfg, sigmas, "euler", start, add_noise)
        latent: torch.Tensor = self.demo.sample_sigmas(*run).latent
        return latent


def presets_of(demo: Any, preset: str, case: str) -> list[Any]:
    """The MODELs behind Performance Mode."""
    models = [demo.model, demo.model.clone()] if case == EXPERTS else [demo.model]
    return [performance.Bench.accelerated("auto", preset, model) for model in models]


class Bench:
    """One model, and its full runs that all are compared with."""

    def __init__(self, name: str, pictures: int) -> None:
        self.name, self.demo = name, plans.DEMOS[name]()
        self.prompts = self.demo.prompts[:pictures]
        self.ways: dict[tuple[str, float], Way] = {}
        self.full: dict[tuple[str, float], list[torch.Tensor]] = {}
        self.plain: dict[tuple[str, float, int], float] = {}

    def row(self, case: str, cfg: float, preset: str) -> Row:
        way = self.ways.setdefault((case, cfg), Way(self.demo, case, cfg))
        models = presets_of(self.demo, preset, case)
        near, computed = [], []
        for prompt, full in zip(self.prompts, self.baseline(way), strict=True):
            near.append(harness.psnr(full, way.run(models, prompt, way.steps)))
            computed.append(sum(harness.report_of(model).computed for model in models))
        spent = statistics.fmean(computed)
        return {
            "model": self.name, "case": case, "cfg": cfg, "preset": preset, "steps": way.steps,
            "computed": spent, "psnr": statistics.fmean(near), "worst": min(near),
            "plain": self.plain_psnr(way, round(spent)),
            "pictures": len(near),
        }  # fmt: skip

    def baseline(self, way: Way) -> list[torch.Tensor]:
        key = (way.case, way.cfg)
        if key not in self.full:
            model = self.demo.model
            self.full[key] = [way.run([model], prompt, way.steps) for prompt in self.prompts]
        return self.full[key]

    def plain_psnr(self, way: Way, steps: int) -> float:
        """How near plain sampling in so many steps comes."""
        key = (way.case, way.cfg, steps)
        if key not in self.plain:
            model, pairs = self.demo.model, zip(self.prompts, self.baseline(way), strict=True)
            self.plain[key] = statistics.fmean(
                harness.psnr(full, way.run([model], prompt, steps)) for prompt, full in pairs
            )
        return self.plain[key]


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=list(plans.DEMOS), choices=plans.DEMOS)
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument(
        "--presets", nargs="+", default=list(performance.PRESETS), choices=performance.PRESETS
    )
    parser.add_argument("--pictures", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0])
    harness.add_results_options(parser, "schedules")


def main(options: argparse.Namespace, environment: Any) -> int:
    data = harness.begun(options, environment)
    known = {tuple(row[key] for key in KEYS) for row in data["rows"]}
    for name in options.models:
        bench = Bench(name, options.pictures)
        for cfg in options.cfg:
            for case in options.cases:
                for preset in options.presets:
                    if (name, case, cfg, preset) not in known:
                        row: Mapping[str, Any] = harness.rounded(bench.row(case, cfg, preset))
                        data["rows"].append(row)
                        harness.write(options.output, data, tell=False)
                        harness.show(row)
    return 0


if __name__ == "__main__":
    harness.run(__file__, add_options, main)

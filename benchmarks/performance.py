"""What the presets of Performance Mode save and cost, on both demo models.

Every preset is sampled for every prompt and seed, in the modes manual and auto, for several step
counts and guidance scales, and compared with the full run of the same noise. `plain_psnr` is plain
sampling with as many steps as the preset computed. `--part quality` may run on a busy machine;
`--part speed --resume` then times each preset in pairs with the full run and adds `seconds` (median
of the accelerated runs) and `speedup` (median of the pairs' ratios).
"""

from __future__ import annotations

import argparse
import json
import statistics
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
import video
from harness import Sample, say

FIRST_SEED = 3000
PRESETS = ("quality", "balanced", "fast", "ultra")
MODELS = ("FLUX", "Wan")
KEYS = ("model", "mode", "approximation", "steps", "cfg")


def demos() -> dict[str, harness.Demo]:
    """The demo models by the name of their architecture."""
    return {"FLUX": harness.Demo(), "Wan": WanDemo(video.MODEL)}


class WanDemo(video.VideoDemo):
    """The video model, sampled like the other one."""

    def sample(
        self, model: Any, prompt: str, seed: int, cfg: float, steps: int, sampler: str = "euler"
    ) -> Sample:
        return self.sample_parts([model], prompt, seed, cfg, steps)


@dataclass
class Bench:
    """One demo model with the full runs that everything is compared with."""

    demo: harness.Demo
    runs: list[tuple[str, int]]
    full: dict[tuple[int, float], list[Sample]] = field(default_factory=dict)
    plain: dict[tuple[int, int, float], float] = field(default_factory=dict)

    def baseline(self, steps: int, cfg: float) -> list[Sample]:
        """Full runs of every prompt and seed, sampled once."""
        if (steps, cfg) not in self.full:
            self.full[steps, cfg] = self.samples(self.demo.model, steps, cfg)
        return self.full[steps, cfg]

    def samples(self, model: Any, steps: int, cfg: float) -> list[Sample]:
        return [self.demo.sample(model, *run, cfg, steps) for run in self.runs]

    def psnrs(self, samples: list[Sample], steps: int, cfg: float) -> list[float]:
        pairs = zip(self.baseline(steps, cfg), samples, strict=True)
        return [harness.psnr(full.latent, other.latent) for full, other in pairs]

    def plain_psnr(self, fewer: int, steps: int, cfg: float) -> float:
        """Mean PSNR of plain sampling with fewer steps."""
        key = (fewer, steps, cfg)
        if key not in self.plain:
            samples = self.samples(self.demo.model, fewer, cfg)
            self.plain[key] = statistics.fmean(self.psnrs(samples, steps, cfg))
        return self.plain[key]

    def accelerated(self, mode: str, approximation: str) -> Any:
        """The model behind the node."""
        from dit_acceleration_pack.acceleration import host
        from dit_acceleration_pack.acceleration.performance import PerformanceSettings

        return host.attach_performance(
            self.demo.model, PerformanceSettings(mode=mode, approximation=approximation)
        )

    def quality(self, mode: str, approximation: str, steps: int, cfg: float) -> dict[str, Any]:
        model = self.accelerated(mode, approximation)
        samples, computed = [], []
        for run in self.runs:
            samples.append(self.demo.sample(model, *run, cfg, steps))
            computed.append(harness.report_of(model).computed)
        psnrs = self.psnrs(samples, steps, cfg)
        return harness.rounded(
            {
                "computed": statistics.fmean(computed),
                "psnr": statistics.fmean(psnrs),
                "least_psnr": min(psnrs),
                "plain_psnr": self.plain_psnr(round(statistics.fmean(computed)), steps, cfg),
            }
        )

    def speed(
        self, mode: str, approximation: str, steps: int, cfg: float, pairs: int
    ) -> dict[str, float]:
        """Times of pairs of a full and an accelerated run, each first in turn."""
        model = self.accelerated(mode, approximation)
        times = []
        for index, run in enumerate((self.runs * pairs)[:pairs]):
            both = [self.demo.model, model]
            if index % 2:
                both.reverse()
            seconds = {id(m): self.demo.sample(m, *run, cfg, steps).seconds for m in both}
            times.append((seconds[id(self.demo.model)], seconds[id(model)]))
        return harness.rounded(
            {
                "seconds": statistics.median(quick for _, quick in times),
                "speedup": statistics.median(full / quick for full, quick in times),
            }
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--modes", nargs="+", default=["auto"])
    parser.add_argument("--prompts", type=int, default=8, help="at most: %(default)s")
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 28, 50])
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 3.0], help="default: 1 3")
    parser.add_argument("--pairs", type=int, default=3, help="timed pairs a row: %(default)s")
    parser.add_argument("--part", choices=("both", "quality", "speed"), default="both")
    parser.add_argument("--jobs", type=int, default=1, help="processes: %(default)s")
    parser.add_argument("--resume", action="store_true", help="add to the rows of the output file")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "performance.json")


def main(options: argparse.Namespace, environment: Any) -> int:
    data: dict[str, Any] = {
        "environment": harness.describe(environment),
        "prompts": options.prompts,
        "pairs": options.pairs,
        "rows": [],
    }
    if options.resume and options.output.exists():
        data["rows"] = json.loads(options.output.read_text(encoding="utf-8"))["rows"]
    rows = data["rows"]
    if options.jobs > 1:
        for found in harness.in_processes(__file__, parts(options), options):
            rows += found
            rows.sort(key=lambda row: [order(options)[k].index(row[k]) for k in order(options)])
            harness.write(options.output, data)
        return 0
    for name, demo in demos().items():
        if name not in options.models:
            continue
        bench = Bench(demo, [(p, FIRST_SEED) for p in demo.prompts[: options.prompts]])
        for steps in options.steps:
            for cfg in options.cfg:
                for mode in options.modes:
                    for preset in PRESETS:
                        identity = dict(zip(KEYS, (name, mode, preset, steps, cfg), strict=True))
                        known = [r for r in rows if all(r[k] == identity[k] for k in KEYS)]
                        row = known[0] if known else identity
                        if "psnr" not in row:
                            row |= bench.quality(mode, preset, steps, cfg)
                        if options.part != "quality" and "speedup" not in row:
                            row |= bench.speed(mode, preset, steps, cfg, options.pairs)
                        if not known:
                            rows.append(row)
                        say(json.dumps(row))
                harness.write(options.output, data)
    return 0


def order(options: argparse.Namespace) -> dict[str, list[Any]]:
    """How rows are sorted."""
    return {
        "model": list(options.models),
        "steps": list(options.steps),
        "cfg": list(options.cfg),
        "mode": list(options.modes),
        "approximation": list(PRESETS),
    }


def parts(options: argparse.Namespace) -> list[list[str]]:
    """Arguments for every model, number of steps and guidance scale, the longest first."""
    shared = ["--modes", *options.modes, "--part", options.part]
    shared += ["--prompts", str(options.prompts), "--pairs", str(options.pairs)]
    return [
        ["--models", name, "--steps", str(steps), "--cfg", f"{cfg:g}", *shared]
        for steps in sorted(options.steps, reverse=True)
        for name in options.models
        for cfg in options.cfg
    ]


if __name__ == "__main__":
    harness.run(__file__, add_options, main)

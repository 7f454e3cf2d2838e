"""What the presets of Performance Mode save and cost, on both demo models.

Every preset is sampled for every prompt and seed, for several step counts and guidance scales, and
compared with the full run of the same noise. `promised` is the speed-up that was planned for;
`plain_psnr` is plain sampling with as many steps as the preset computed.

`--part quality` may run on a busy machine; `--part speed --resume` then times every preset in every
mode with the first prompt, taking turns with the full run after every step, and adds `seconds` (by
mode, every step the median of the rounds), `speedup` (by mode how many times as long the full run
took, likewise) and `from_first` (by mode the least PSNR of a timed latent to that of the first
mode, null where all are equal bit for bit).
"""

from __future__ import annotations

import argparse
import functools
import json
import math
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
import turns
import video
from harness import Sample

if TYPE_CHECKING:
    import torch

FIRST_SEED = 3000
PRESETS = ("quality", "balanced", "fast", "ultra")
MODELS = ("FLUX", "Wan")
MODES = ("auto", "manual", "speed", "memory")
KEYS = ("model", "approximation", "steps", "cfg")


class WanDemo(video.VideoDemo):
    """The video model, sampled like the other one."""

    def sample(
        self, model: Any, prompt: str, seed: int, cfg: float, steps: int, sampler: str = "euler"
    ) -> Sample:
        return self.sample_parts([model], prompt, seed, cfg, steps, sampler)


DEMOS: dict[str, Callable[[], harness.Demo]] = {
    "FLUX": harness.Demo,
    "Wan": lambda: WanDemo(video.MODEL),
}
"""The demo models by the name of their architecture."""


@dataclass
class Bench:
    """One demo model with the full runs that everything is compared with."""

    make: Callable[[], harness.Demo]
    demo: harness.Demo
    runs: list[tuple[str, int]]
    others: list[harness.Demo] = field(default_factory=list)
    """More of the same, one a preset, for what is timed."""
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

    @staticmethod
    def accelerated(mode: str, approximation: str, model: Any) -> Any:
        """A model behind the node."""
        from dit_acceleration_pack.acceleration import host
        from dit_acceleration_pack.acceleration.performance import PerformanceSettings

        return host.attach_performance(
            model, PerformanceSettings(mode=mode, approximation=approximation)
        )

    def quality(self, approximation: str, steps: int, cfg: float) -> dict[str, Any]:
        model = self.accelerated(MODES[0], approximation, self.demo.model)
        samples, computed = [], []
        for run in self.runs:
            samples.append(self.demo.sample(model, *run, cfg, steps))
            computed.append(harness.report_of(model).computed)
        psnrs = self.psnrs(samples, steps, cfg)
        return harness.rounded(
            {
                "computed": statistics.fmean(computed),
                "promised": harness.report_of(model).promised,
                "psnr": statistics.fmean(psnrs),
                "least_psnr": min(psnrs),
                "plain_psnr": self.plain_psnr(round(statistics.fmean(computed)), steps, cfg),
            }
        )

    def speeds(
        self, steps: int, cfg: float, rounds: int, modes: Sequence[str]
    ) -> dict[str, dict[str, Any]]:
        """What every preset is timed at, by mode."""
        found: dict[str, dict[str, Any]] = {
            preset: {"seconds": {}, "speedup": {}, "from_first": {}} for preset in PRESETS
        }
        firsts: dict[str, torch.Tensor] = {}
        for mode in modes:
            timed = self.timed(mode, steps, cfg, rounds)
            full = turns.typical(timed.pop(turns.FULL))
            for preset, samples in timed.items():
                seconds, row = turns.typical(samples), found[preset]
                first = firsts.setdefault(preset, samples[0].latent)
                near = min(harness.psnr(first, sample.latent) for sample in samples)
                row["seconds"][mode] = round(seconds, 4)
                row["speedup"][mode] = round(full / seconds, 4)
                row["from_first"][mode] = None if math.isinf(near) else round(near, 4)
        return found

    def timed(self, mode: str, steps: int, cfg: float, rounds: int) -> dict[str, list[Sample]]:
        """The full run and every preset of a mode, sampled in turns, some rounds."""
        while len(self.others) < len(PRESETS):
            self.others.append(self.make())
        ways = {preset: functools.partial(self.accelerated, mode, preset) for preset in PRESETS}
        return turns.beside_full(
            [self.demo, *self.others], ways, (*self.runs[0], cfg, steps), rounds
        )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=MODELS)
    parser.add_argument("--prompts", type=int, default=8, help="at most: %(default)s")
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 28, 50])
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 3.0], help="default: 1 3")
    parser.add_argument(
        "--modes", nargs="+", default=list(MODES), choices=MODES, help="which ones are timed"
    )
    parser.add_argument("--rounds", type=int, default=3, help="timed rounds: %(default)s")
    parser.add_argument("--part", choices=("both", "quality", "speed"), default="both")
    parser.add_argument("--jobs", type=int, default=1, help="processes: %(default)s")
    parser.add_argument("--resume", action="store_true", help="add to the rows of the output file")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "performance.json")


def main(options: argparse.Namespace, environment: Any) -> int:
    data: dict[str, Any] = {
        "environment": harness.describe(environment),
        "prompts": options.prompts,
        "rounds": options.rounds,
        "rows": [],
    }
    if options.resume and options.output.exists():
        data["rows"] = json.loads(options.output.read_text(encoding="utf-8"))["rows"]
    rows = data["rows"]
    if options.jobs > 1:
        for found in harness.in_processes(__file__, parts(options), options):
            rows += found
            rows.sort(key=place)
            harness.write(options.output, data)
        return 0
    for name, make in DEMOS.items():
        if name not in options.models:
            continue
        demo = make()
        bench = Bench(make, demo, [(p, FIRST_SEED) for p in demo.prompts[: options.prompts]])
        for steps in options.steps:
            for cfg in options.cfg:
                measure(bench, rows, name, steps, cfg, options)
                rows.sort(key=place)
                harness.write(options.output, data)
    return 0


def measure(
    bench: Bench, rows: list[Any], name: str, steps: int, cfg: float, options: argparse.Namespace
) -> None:
    """Add what is missing of one model, number of steps and guidance scale."""
    here = []
    for preset in PRESETS:
        identity = dict(zip(KEYS, (name, preset, steps, cfg), strict=True))
        known = [r for r in rows if all(r[k] == identity[k] for k in KEYS)]
        row = known[0] if known else identity
        if "psnr" not in row:
            row |= bench.quality(preset, steps, cfg)
        if not known:
            rows.append(row)
        here.append(row)
        harness.show(row)
    known = {mode for mode in MODES if all(mode in row.get("speedup", ()) for row in here)}
    if options.part != "quality" and not known.issuperset(options.modes):
        timed = bench.speeds(steps, cfg, options.rounds, options.modes)
        for row in here:
            row |= timed[row["approximation"]]
            harness.show(row)


def place(row: Mapping[str, Any]) -> tuple[Any, ...]:
    """Where a row stands among the others."""
    preset = PRESETS.index(row["approximation"])
    return MODELS.index(row["model"]), row["steps"], row["cfg"], preset


def parts(options: argparse.Namespace) -> list[list[str]]:
    """Arguments for every model, number of steps and guidance scale, the longest first."""
    shared = ["--part", options.part, "--modes", *options.modes]
    shared += ["--prompts", str(options.prompts), "--rounds", str(options.rounds)]
    return [
        ["--models", name, "--steps", str(steps), "--cfg", f"{cfg:g}", *shared]
        for steps in sorted(options.steps, reverse=True)
        for name in options.models
        for cfg in options.cfg
    ]


if __name__ == "__main__":
    harness.run(__file__, add_options, main)

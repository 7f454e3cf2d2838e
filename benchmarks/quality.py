"""What the settings of Apply Cache-DiT save and what they cost, on the demo model.

Every setting is sampled for every prompt and seed and compared with the full run of the same
noise: evaluations computed, PSNR of the latents (peak: range of the full run's latent; mean of dB)
and SSIM of the decoded pictures. Speed is measured in rounds over all settings, each accelerated
run paired with the full run just before or after it: `seconds` is the median of the accelerated
runs, `speedup` the median of the pairs' ratios. Plain sampling with fewer steps is measured in the
same way, as the honest rival.
"""

from __future__ import annotations

import argparse
import fnmatch
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import harness
import turns

FIRST_SEED = 1000
PLAIN, DEFAULT = "plain", "R 0.24 MC 3"
PLAIN_STEPS = (20, 14, 12, 10, 8)

# When to skip.
THRESHOLDS: dict[str, dict[str, Any]] = {
    "R 0.12 MC 2": {"residual_diff_threshold": 0.12, "max_continuous_cached_steps": 2},
    DEFAULT: {},
    "R 0.40 MC 4": {"residual_diff_threshold": 0.40, "max_continuous_cached_steps": 4},
    "R 0.60 MC 6": {"residual_diff_threshold": 0.60, "max_continuous_cached_steps": 6},
}
# What to put in place.
FORECASTS: dict[str, dict[str, Any]] = {
    "none": {},
    "taylorseer 1": {"calibrator": "taylorseer"},
    "taylorseer 2": {"calibrator": "taylorseer", "taylorseer_order": 2},
    "trajectory 1": {"calibrator": "trajectory"},
    "trajectory 2": {"calibrator": "trajectory", "taylorseer_order": 2},
    "blend": {"calibrator": "blend"},
}
CORRECTED = ", corrected"
FORECASTS |= {
    name + CORRECTED: {**FORECASTS[name], "corrector": True}
    for name in ("none", "taylorseer 1", "blend")
}


@dataclass(frozen=True)
class Setting:
    """One line of the table: when to skip, what to put in place, and the node's inputs."""

    decision: str
    forecast: str
    inputs: Mapping[str, Any] = field(default_factory=dict)
    steps: int | None = None
    """Steps of plain sampling, None for an accelerated run of all steps."""

    @property
    def name(self) -> str:
        return self.decision if self.steps else f"{self.decision}, {self.forecast}"


def all_settings() -> Iterator[Setting]:
    """Every setting of the table, without plain sampling."""
    for decision, when in THRESHOLDS.items():
        for forecast, what in FORECASTS.items():
            yield Setting(decision, forecast, {**when, **what})
    for preset in ("slow", "medium", "fast", "ultra"):
        for policy in ("static", "dynamic"):
            when = {"scm_preset": preset, "scm_policy": policy}
            for forecast in ("none", "taylorseer 1"):
                yield Setting(f"SCM {preset} {policy}", forecast, {**when, **FORECASTS[forecast]})


def plain_settings(rows: Sequence[Mapping[str, Any]]) -> Iterator[Setting]:
    """Plain sampling with fewer steps, first with as many as the default settings compute."""
    alike = [r["computed"] for r in rows if (r["decision"], r["forecast"]) == (DEFAULT, "none")]
    for steps in sorted({*PLAIN_STEPS, *(round(c) for c in alike)}, reverse=True):
        yield Setting(f"{PLAIN} {steps} steps", "none", steps=steps)


@dataclass
class Bench:
    """The demo model with the full runs that everything is compared with.

    Parameters
    ----------
    runs
        Prompts and seeds to sample.
    pairs
        How many pairs of runs are timed for each setting.
    """

    demo: harness.Demo
    runs: list[tuple[str, int]]
    steps: int
    pairs: int
    full: dict[tuple[str, float], list[harness.Sample]] = field(default_factory=dict)

    def baseline(self, sampler: str, cfg: float) -> list[harness.Sample]:
        """Full runs of every prompt and seed, sampled once."""
        key = (sampler, cfg)
        if key not in self.full:
            self.full[key] = [
                self.demo.sample(self.demo.model, prompt, seed, cfg, self.steps, sampler)
                for prompt, seed in self.runs
            ]
        return self.full[key]

    def measure(self, setting: Setting, sampler: str, cfg: float) -> dict[str, Any]:
        """The whole row of one setting."""
        row = self.quality(setting, sampler, cfg)
        return row | self.speeds([setting], sampler, cfg)[0]

    def quality(self, setting: Setting, sampler: str, cfg: float) -> dict[str, Any]:
        """The row of one setting, without times."""
        baseline = self.baseline(sampler, cfg)
        steps = setting.steps or self.steps
        accelerated = self.accelerated(setting)
        samples: list[harness.Sample] = []
        counts: list[tuple[int, int]] = []
        for prompt, seed in self.runs:
            samples.append(self.demo.sample(accelerated, prompt, seed, cfg, steps, sampler))
            counts.append(self.count(accelerated, setting, samples[-1]))
        pairs = list(zip(baseline, samples, strict=True))
        row = {
            "decision": setting.decision,
            "forecast": setting.forecast,
            "inputs": dict(setting.inputs),
            "sampler": sampler,
            "cfg": cfg,
            "steps": steps,
            "evaluations": statistics.fmean(total for total, _ in counts),
            "computed": statistics.fmean(computed for _, computed in counts),
            "psnr": statistics.fmean(harness.psnr(b.latent, s.latent) for b, s in pairs),
            "ssim": statistics.fmean(self.similarity(b, s) for b, s in pairs),
        }
        return harness.rounded(row)

    def speeds(
        self, settings: Sequence[Setting], sampler: str, cfg: float
    ) -> list[dict[str, float]]:
        """Times of every setting, in pairs with the full run."""

        def run_of(model: Any, steps: int) -> turns.Run:
            def run(index: int) -> harness.Sample:
                which = self.runs[index % len(self.runs)]
                return self.demo.sample(model, *which, cfg, steps, sampler)

            return run

        full = run_of(self.demo.model, self.steps)
        others = [run_of(self.accelerated(s), s.steps or self.steps) for s in settings]
        pairs = turns.in_rounds(full, others, self.pairs)
        return [harness.rounded(turns.speed_of(each)) for each in pairs]

    def accelerated(self, setting: Setting) -> Any:
        """The model that a setting samples with."""
        model = self.demo.model
        return model if setting.steps else harness.accelerate(model, **setting.inputs)

    @staticmethod
    def count(model: Any, setting: Setting, sample: harness.Sample) -> tuple[int, int]:
        """Evaluations of the last run, and how many of them were computed."""
        if setting.steps:
            return sample.evaluations, sample.evaluations
        report = harness.report_of(model)
        return len(report.evaluations), report.computed

    def similarity(self, full: harness.Sample, other: harness.Sample) -> float:
        return harness.ssim(self.demo.picture(full.latent), self.demo.picture(other.latent))


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", type=int, default=8, help="how many of them: %(default)s")
    parser.add_argument("--seeds", type=int, default=1, help="seeds a prompt: %(default)s")
    parser.add_argument("--samplers", nargs="+", default=["euler"], help="default: euler")
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 3.0], help="default: 1 3")
    parser.add_argument("--steps", type=int, default=28, help="default: %(default)s")
    parser.add_argument("--pairs", type=int, default=5, help="timed pairs a row: %(default)s")
    parser.add_argument(
        "--part",
        choices=("both", "quality", "speed"),
        default="both",
        help="quality may be measured on a busy machine, and speed added later",
    )
    parser.add_argument(
        "--only",
        nargs="+",
        metavar="PATTERN",
        default=["*"],
        help="settings by name, such as 'SCM*' 'plain*'",
    )
    parser.add_argument("--quick", action="store_true", help="2 prompts, 2 pairs, few settings")
    parser.add_argument(
        "--resume", action="store_true", help="keep the rows that the output file has already"
    )
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "quality.json")


def chosen(rows: Sequence[Mapping[str, Any]], patterns: Sequence[str]) -> list[Setting]:
    """The settings whose name one of the patterns fits, plain sampling last."""
    settings = [*all_settings(), *plain_settings(rows)]
    return [s for s in settings if any(fnmatch.fnmatch(s.name, p) for p in patterns)]


def main(options: argparse.Namespace, environment: Any) -> int:
    if options.quick:
        options.prompts, options.pairs = 2, 2
        options.only = ["*none", f"{DEFAULT}*", f"{PLAIN}*"]
    data: dict[str, Any] = {
        "environment": harness.describe(environment),
        "prompts": options.prompts,
        "seeds": options.seeds,
        "pairs": options.pairs,
        "rows": [],
    }
    if (options.resume or options.part == "speed") and options.output.exists():
        before = json.loads(options.output.read_text(encoding="utf-8"))
        # Times belong to the machine's state now, the rest to the earlier run.
        data |= {key: before[key] for key in ("prompts", "seeds", "rows")}
    demo = harness.Demo()
    prompts = demo.prompts[: data["prompts"]]
    runs = [(p, FIRST_SEED + s) for s in range(data["seeds"]) for p in prompts]
    bench = Bench(demo, runs, options.steps, options.pairs)
    for sampler in options.samplers:
        for cfg in options.cfg:
            measure_all(bench, data["rows"], sampler, cfg, options)
            harness.write(options.output, data)
    return 0


def measure_all(
    bench: Bench,
    rows: list[dict[str, Any]],
    sampler: str,
    cfg: float,
    options: argparse.Namespace,
) -> None:
    """Append every row that is missing, in the order of the table, and the times."""
    for model in (bench.demo.model, harness.accelerate(bench.demo.model)):
        bench.demo.sample(model, *bench.runs[0], cfg, 6, sampler)  # warms up

    def here() -> dict[tuple[str, str], dict[str, Any]]:
        same = (r for r in rows if (r["sampler"], r["cfg"]) == (sampler, cfg))
        return {(r["decision"], r["forecast"]): r for r in same}

    def key(setting: Setting) -> tuple[str, str]:
        return (setting.decision, setting.forecast)

    if options.part != "speed":
        # Which plain runs there are follows from the default settings' row.
        for plain in (False, True):
            for setting in chosen([*here().values()], options.only):
                if bool(setting.steps) == plain and key(setting) not in here():
                    rows.append(bench.quality(setting, sampler, cfg))
                    harness.show(rows[-1])
    if options.part != "quality":
        found = here()
        settings = [s for s in chosen([*found.values()], options.only) if key(s) in found]
        if options.resume:
            settings = [s for s in settings if "speedup" not in found[key(s)]]
        for setting, times in zip(settings, bench.speeds(settings, sampler, cfg), strict=True):
            found[key(setting)].update(times)
            harness.show(found[key(setting)])


if __name__ == "__main__":
    harness.run(__file__, add_options, main)

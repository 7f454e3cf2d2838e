"""What caching saves on a video model of the Wan architecture, beside plain fewer steps.

Every setting is sampled for every prompt and seed and compared with the full run of the same noise,
once with one sampler and once as Wan 2.2 is used: a high-noise model for the first steps and a
low-noise model for the rest (here the same weights in two MODELs). PSNR is taken on the latents
(peak: range of the full run's latent; mean of dB). `plain_psnr` is what plain sampling reaches with
as many steps as the setting computed, between two step counts by linear interpolation.

`--part quality` may run on a busy machine; `--part speed --resume` then times pairs of a full and
an accelerated run and adds `seconds` (median of the accelerated runs) and `speedup` (median ratio)
to the rows with the forecast that is recommended for video; the others take as long.
"""

from __future__ import annotations

import argparse
import importlib
import itertools
import json
import statistics
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import harness
from harness import ROOT, Sample

if TYPE_CHECKING:
    import torch

DEMO = ROOT / "workflows" / "demo"
MODEL = DEMO / "models" / "dit_accel_demo_wan.safetensors"
FIRST_SEED = 2000
STEPS, SWITCH = 28, 12
PLAIN_STEPS = (22, 20, 18, 16, 14, 12, 11, 10, 9, 8)
GRAPHS = ("one sampler", "two samplers")

DECISIONS: dict[str, dict[str, Any]] = {
    "R 0.12 MC 2": {"residual_diff_threshold": 0.12, "max_continuous_cached_steps": 2},
    "R 0.24 MC 3": {},
    "R 0.40 MC 4": {"residual_diff_threshold": 0.40, "max_continuous_cached_steps": 4},
}
TEACACHE_SHARES = ("40%", "50%", "60%")
FORECASTS: dict[str, dict[str, Any]] = {
    "hold": {"calibrator": "none"},
    "taylorseer 1": {"calibrator": "taylorseer"},
    "trajectory 1": {"calibrator": "trajectory"},
    "blend": {"calibrator": "blend"},
}
FORECASTS |= {
    f"{name}, corrected": {**FORECASTS[name], "corrector": True}
    for name in ("hold", "taylorseer 1", "blend")
}
TIMED = "trajectory 1"


@dataclass(frozen=True)
class Setting:
    """One row: a technique with its inputs, or plain sampling with fewer steps."""

    technique: str
    decision: str
    forecast: str = "hold"
    inputs: Mapping[str, Any] = field(default_factory=dict)
    steps: int = STEPS

    @property
    def is_plain(self) -> bool:
        return self.technique == "plain"

    def apply(self, model: Any, fit: Any) -> Any:
        """The model behind the technique's node."""
        if self.is_plain:
            return model
        if self.technique == "Cache-DiT":
            return harness.accelerate(model, **self.inputs)
        from dit_acceleration_pack.acceleration import host
        from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
        from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

        return host.attach(model, TeaCache(TeaCacheSettings(**self.inputs), lambda _: fit))


def all_settings(calibration: Any) -> Iterator[Setting]:
    """Plain sampling first: what the others are compared with."""
    for steps in PLAIN_STEPS:
        yield Setting("plain", f"{steps} steps", steps=steps)
    for decision, when in DECISIONS.items():
        for forecast, what in FORECASTS.items():
            yield Setting("Cache-DiT", decision, forecast, {**when, **what})
    for share in TEACACHE_SHARES:
        threshold = round(calibration.thresholds[share], 4)
        for forecast, what in FORECASTS.items():
            inputs = {"rel_l1_thresh": threshold, **what}
            yield Setting("TeaCache", f"calibrated for {share}", forecast, inputs)


class VideoDemo(harness.Demo):
    """The video model with its prompts; a second MODEL of the same file is the low-noise one."""

    def __init__(self, path: Path) -> None:
        harness.load_file("demo", DEMO / "__init__.py", package=DEMO)
        self.shapes = importlib.import_module("demo.moving_shapes")
        self.prompts = self.shapes.PROMPTS
        self.path = path
        self.calls = 0
        self.model, self.low = self.load(), self.load()

    def load(self) -> Any:
        import comfy.sd
        from comfy.patcher_extension import WrappersMP

        model = comfy.sd.load_diffusion_model(str(self.path))
        model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "benchmark_count", self._count)
        return model

    def picture(self, latent: torch.Tensor) -> Any:
        """Every frame beside the other, ``[H, F * W, 3]``, as a numpy array."""
        video = self.shapes.model_to_video(self.shapes.host_to_model(latent.float().cpu()))
        return video[0].permute(2, 1, 3, 0).flatten(1, 2).numpy()

    def conditioning(self, prompt: str | None) -> list[Any]:
        return [[self.shapes.text_embedding(prompt or self.shapes.UNCONDITIONAL), {}]]

    def empty(self, side: int | None = None) -> torch.Tensor:
        import torch

        channels, frames, *sides = self.shapes.LATENT_SHAPE
        return torch.zeros(1, channels, frames, *((side, side) if side else sides))

    def sample_parts(
        self,
        parts: Sequence[Any],
        prompt: str,
        seed: int,
        cfg: float,
        steps: int,
        sampler: str = "euler",
    ) -> Sample:
        """Sample with one model, or with two as KSampler (Advanced) does: 0..k, then k..steps."""
        import comfy.sample
        import torch

        switch = round(SWITCH * steps / STEPS)
        ends = [steps] if len(parts) == 1 else [switch, steps]
        latent = self.empty()
        noise = comfy.sample.prepare_noise(latent, seed)
        positive, negative = self.conditioning(prompt), self.conditioning(None)
        with torch.inference_mode():
            harness.synchronize()
            self.calls, start, laps = 0, 0, harness.Laps(self.between_steps)
            for model, end in zip(parts, ends, strict=True):
                latent = comfy.sample.sample(
                    model, noise, steps, cfg, sampler, "simple", positive, negative, latent,
                    disable_noise=start > 0, start_step=start, last_step=end,
                    force_full_denoise=end == steps, callback=laps, disable_pbar=True, seed=seed,
                )  # fmt: skip
                start, noise = end, torch.zeros_like(noise)
            harness.synchronize()
            taken = laps.taken()
            return Sample(latent, sum(taken), self.calls, taken)

    def calibrate(self) -> Any:
        """What Calibrate TeaCache measures on the first prompt."""
        from dit_acceleration_pack.acceleration import host
        from dit_acceleration_pack.acceleration.policies import calibration
        from dit_acceleration_pack.acceleration.policies.recording import Recorder, Recording

        recording = Recording()
        model = host.attach(self.model, Recorder(recording))
        self.sample_parts([model], self.prompts[0], 0, 1.0, STEPS)
        return calibration.calibrate("demo", "Wan", recording.inputs, recording.outputs)


@dataclass
class Bench:
    """The model with the full runs that everything is compared with."""

    demo: VideoDemo
    runs: list[tuple[str, int]]
    fit: Any
    full: dict[tuple[str, float], list[Sample]] = field(default_factory=dict)

    def parts(self, graph: str, setting: Setting | None = None) -> list[Any]:
        models = [self.demo.model, self.demo.low][: GRAPHS.index(graph) + 1]
        return [setting.apply(m, self.fit) for m in models] if setting else models

    def quality(self, setting: Setting, graph: str, cfg: float) -> dict[str, Any]:
        """The row of one setting, without times."""
        key = (graph, cfg)
        if key not in self.full:
            plain = self.parts(graph)
            self.full[key] = [self.demo.sample_parts(plain, *run, cfg, STEPS) for run in self.runs]
        parts = self.parts(graph, setting)
        samples, computed = [], []
        for run in self.runs:
            samples.append(self.demo.sample_parts(parts, *run, cfg, setting.steps))
            reports = [] if setting.is_plain else [harness.report_of(part) for part in parts]
            computed.append(sum(r.computed for r in reports) if reports else setting.steps)
        psnrs = [
            harness.psnr(full.latent, other.latent)
            for full, other in zip(self.full[key], samples, strict=True)
        ]
        row = {
            "graph": graph,
            "cfg": cfg,
            "technique": setting.technique,
            "decision": setting.decision,
            "forecast": setting.forecast,
            "inputs": dict(setting.inputs),
            "computed": statistics.fmean(computed),
            "psnr": statistics.fmean(psnrs),
            "psnr_lowest": min(psnrs),
        }
        return harness.rounded(row)

    def speed(self, setting: Setting, graph: str, cfg: float, pairs: int) -> dict[str, float]:
        """Times of pairs of a full and an accelerated run."""
        plain, parts = self.parts(graph), self.parts(graph, setting)
        times = []
        for run in (self.runs * pairs)[:pairs]:
            full = self.demo.sample_parts(plain, *run, cfg, STEPS).seconds
            times.append((full, self.demo.sample_parts(parts, *run, cfg, setting.steps).seconds))
        ratio = statistics.median(full / quick for full, quick in times)
        seconds = statistics.median(quick for _, quick in times)
        return harness.rounded({"seconds": seconds, "speedup": ratio})


def plain_psnr(rows: Sequence[Mapping[str, Any]], computed: float) -> float | None:
    """PSNR of plain sampling with ``computed`` steps, from the rows of the same graph and cfg."""
    points = sorted((r["computed"], r["psnr"]) for r in rows if r["technique"] == "plain")
    for (x0, y0), (x1, y1) in itertools.pairwise(points):
        if x0 <= computed <= x1:
            return round(y0 + (y1 - y0) * (computed - x0) / (x1 - x0), 4)
    return None


def measure(
    bench: Bench,
    settings: Sequence[Setting],
    rows: list[dict[str, Any]],
    graph: str,
    cfg: float,
    options: argparse.Namespace,
) -> None:
    """Make the rows of one graph, or add times to the ones that are there."""
    bench.demo.sample_parts(bench.parts(graph), *bench.runs[0], cfg, 4)  # warms up
    for setting in settings:
        here = [r for r in rows if (r["graph"], r["cfg"]) == (graph, cfg)]
        key = (setting.technique, setting.decision, setting.forecast)
        known = [r for r in here if (r["technique"], r["decision"], r["forecast"]) == key]
        row = known[0] if known else bench.quality(setting, graph, cfg)
        if not known:
            if not setting.is_plain:
                row["plain_psnr"] = plain_psnr(here, row["computed"])
            rows.append(row)
        if options.part != "quality" and setting.forecast == TIMED:
            row |= bench.speed(setting, graph, cfg, options.pairs)
        harness.show(row)


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", type=Path, default=MODEL)
    parser.add_argument("--prompts", type=int, default=6, help="how many of them: %(default)s")
    parser.add_argument("--seeds", type=int, default=4, help="seeds a prompt: %(default)s")
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 3.0], help="default: 1 3")
    parser.add_argument("--graphs", nargs="+", default=list(GRAPHS), choices=GRAPHS)
    parser.add_argument("--pairs", type=int, default=5, help="timed pairs a row: %(default)s")
    parser.add_argument("--part", choices=("both", "quality", "speed"), default="both")
    parser.add_argument("--resume", action="store_true", help="add to the rows of the output file")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "video.json")


def main(options: argparse.Namespace, environment: Any) -> int:
    demo = VideoDemo(options.model)
    prompts = demo.prompts[: options.prompts]
    runs = [(p, FIRST_SEED + s) for s in range(options.seeds) for p in prompts]
    calibration = demo.calibrate()
    data: dict[str, Any] = {
        "environment": harness.describe(environment),
        "prompts": options.prompts,
        "seeds": options.seeds,
        "pairs": options.pairs,
        "switch": SWITCH,
        "calibration": {"r2": round(calibration.r2, 4), "points": calibration.points},
        "rows": [],
    }
    if options.resume and options.output.exists():
        before = json.loads(options.output.read_text(encoding="utf-8"))
        kept = {"prompts", "seeds", "calibration", "rows"}
        kept |= {"pairs"} if options.part == "quality" else set()
        data |= {key: before[key] for key in kept}
    bench, settings = Bench(demo, runs, calibration.fit()), list(all_settings(calibration))
    for graph in options.graphs:
        for cfg in options.cfg:
            measure(bench, settings, data["rows"], graph, cfg, options)
            harness.write(options.output, data)
    return 0


if __name__ == "__main__":
    harness.run(__file__, add_options, main)

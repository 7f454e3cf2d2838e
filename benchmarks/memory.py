"""What storing residuals compactly costs on the demo model, and what it saves.

Every row samples the same prompts with the same seeds. ``psnr`` compares a storage with residuals
kept as they are (``gpu``), ``psnr_full`` with sampling that skips nothing. Bytes are the report's.
"""

from __future__ import annotations

import argparse
import statistics
from pathlib import Path
from typing import Any

import harness

FORECASTS: dict[str, dict[str, Any]] = {
    "none": {"calibrator": "none"},
    "taylorseer 1": {"calibrator": "taylorseer", "taylorseer_order": 1},
    "trajectory 1": {"calibrator": "trajectory", "taylorseer_order": 1},
    "blend": {"calibrator": "blend"},
}
MODES = ("cpu", "gpu_bf16", "gpu_fp8")
FIRST_SEED = 1000


def measure(
    demo: harness.Demo, prompts: list[str], cfg: float, steps: int, forecast: str
) -> list[dict[str, Any]]:
    """One row a storage, for one forecast with the default threshold."""

    def sampled(model: Any) -> list[Any]:
        pairs = enumerate(prompts, FIRST_SEED)
        return [demo.sample(model, prompt, seed, cfg, steps).latent for seed, prompt in pairs]

    full = sampled(demo.model)
    rows: list[dict[str, Any]] = []
    exact: list[Any] = []
    for mode in ("gpu", *MODES):
        model = harness.accelerate(demo.model, residual_device=mode, **FORECASTS[forecast])
        latents = sampled(model)
        report = harness.report_of(model)
        exact = exact or latents
        against = [harness.psnr(a, b) for a, b in zip(exact, latents, strict=True)]
        row = {
            "storage": mode,
            "forecast": forecast,
            "cfg": cfg,
            "computed": report.computed,
            "evaluations": len(report.evaluations),
            "placement": report.residual_placement,
            "peak_bytes": report.residual_peak_bytes,
            # Equal pictures have no finite PSNR, which JSON has no number for.
            "psnr": None if min(against) == float("inf") else statistics.mean(against),
            "psnr_lowest": None if min(against) == float("inf") else min(against),
            "psnr_full": statistics.mean(
                harness.psnr(a, b) for a, b in zip(full, latents, strict=True)
            ),
        }
        rows.append(harness.rounded(row, 2))
        harness.show(rows[-1])
    return rows


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", type=int, default=8, help="how many of them: %(default)s")
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 3.0], help="default: 1 3")
    parser.add_argument("--steps", type=int, default=28, help="default: %(default)s")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "memory.json")


def main(options: argparse.Namespace, environment: Any) -> int:
    demo = harness.Demo()
    prompts = list(demo.prompts[: options.prompts])
    data: dict[str, Any] = {
        "environment": harness.describe(environment),
        "prompts": len(prompts),
        "steps": options.steps,
        "rows": [],
    }
    for cfg in options.cfg:
        for forecast in FORECASTS:
            data["rows"] += measure(demo, prompts, cfg, options.steps, forecast)
            harness.write(options.output, data)
    return 0


if __name__ == "__main__":
    harness.run(__file__, add_options, main)

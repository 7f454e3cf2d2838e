#!/usr/bin/env python3
"""How signals change from one evaluation to the next, with every sampler, and between pictures.

What tells a jump from a usual change (``acceleration/sampling/tracks.py``) is chosen from these:
for every run the largest ratio of a change to the largest of the four before it, and for two seeds
how far their signals are apart at the same evaluation.
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path
from typing import Any

import harness
import performance
from harness import ROOT

SCHEDULES = (("simple", 20), ("karras", 9), ("beta", 30))
SEEDS = (7, 8)
SHOWN, ENOUGH, FAR = 4, 2, 0.4


def signals(demo: Any, seed: int, steps: int, scheduler: str, sampler: str) -> list[Any]:
    """The first block's residual of every evaluation of a run without skipping."""
    import comfy.samplers
    import torch

    from dit_acceleration_pack.acceleration.sampling import run

    found: list[torch.Tensor] = []
    decide = run.SamplingRun._decide

    def watched(self: Any, course: Any, look: Any, info: Any) -> Any:
        found.append(look.signal.clone())
        return decide(self, course, look, info)

    run.SamplingRun._decide = watched
    try:
        model = harness.accelerate(demo.model, residual_diff_threshold=0.0)
        sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, scheduler, steps)
        if hasattr(demo, "sample_parts"):
            shape = demo.shapes.LATENT_SHAPE
        else:
            size = demo.shapes.LATENT_SIZE
            shape = (demo.shapes.LATENT_CHANNELS, size, size)
        empty = torch.zeros(1, *shape)
        noise = comfy.sample.prepare_noise(empty, seed)
        with torch.inference_mode():
            comfy.sample.sample_custom(
                model, noise, 1.0, comfy.samplers.sampler_object(sampler), sigmas,
                demo.conditioning(demo.prompts[0]), demo.conditioning(None), empty,
                disable_pbar=True, seed=seed,
            )  # fmt: skip
    finally:
        run.SamplingRun._decide = decide
    return found


def change(now: Any, before: Any) -> float:
    return float((now - before).abs().mean() / before.abs().mean())


def row(kind: str, demo: Any, sampler: str, scheduler: str, steps: int) -> dict[str, Any]:
    """One sampler and schedule: how it changes, and how far another picture is."""
    one, other = (signals(demo, seed, steps, scheduler, sampler) for seed in SEEDS)
    changes = [change(now, before) for before, now in itertools.pairwise(one)]
    ratios = [
        (changes[i] / max(changes[max(0, i - SHOWN) : i]), changes[i])
        for i in range(ENOUGH, len(changes))
    ]
    apart = [change(a, b) for a, b in zip(one, other, strict=False)]
    return harness.rounded(
        {
            "model": kind,
            "sampler": sampler,
            "scheduler": scheduler,
            "steps": steps,
            "largest_change": max(changes),
            "largest_ratio": max((ratio for ratio, _ in ratios), default=0.0),
            "largest_ratio_far": max((ratio for ratio, c in ratios if c > FAR), default=0.0),
            "least_apart": min(apart),
            "most_apart": max(apart),
        }
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=list(performance.MODELS))
    parser.add_argument("--samplers", nargs="+", help="default: all of the host's")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "tracks.json")


def main(options: argparse.Namespace, environment: Any) -> int:
    import comfy.samplers

    data: dict[str, Any] = {"environment": harness.describe(environment), "rows": []}
    for kind in options.models:
        demo = performance.DEMOS[kind]()
        for sampler in options.samplers or comfy.samplers.SAMPLER_NAMES:
            for scheduler, steps in SCHEDULES:
                # These choose their own evaluations.
                if scheduler != "simple" and sampler in ("dpm_adaptive", "dpm_fast"):
                    continue
                data["rows"].append(row(kind, demo, sampler, scheduler, steps))
        harness.write(options.output, data, tell=False)
    far = max(data["rows"], key=lambda r: r["largest_ratio_far"])
    near = min(data["rows"], key=lambda r: r["least_apart"])
    print(f"largest ratio where the change is over {FAR}: {far}")
    print(f"pictures nearest to each other: {near}")
    return 0


if __name__ == "__main__":
    harness.run(str(ROOT / "benchmarks" / "tracks.py"), add_options, main)

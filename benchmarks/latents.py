#!/usr/bin/env python3
"""Hashes of the latents that every preset gives on both demo models: what a change must not move.

``--write FILE`` keeps them, ``--compare FILE`` tells which differ from kept ones. On another
machine, or with another number of threads, rounding differs: keep and compare on the same.
"""

from __future__ import annotations

import argparse
import hashlib
import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import harness
import performance
from harness import ROOT, say

SAMPLERS = ("euler", "heun", "dpmpp_2m", "res_multistep", "euler_ancestral")
SEED = 7
SHORT, LONG = 12, 28


def levers() -> dict[str, Callable[[Any], Any]]:
    """Ways to accelerate a MODEL, by name."""
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.performance import PerformanceSettings
    from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
    from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

    def preset(name: str, **more: Any) -> Callable[[Any], Any]:
        settings = PerformanceSettings(approximation=name, **more)
        return lambda model: host.attach_performance(model, settings)

    def cache_dit(**settings: Any) -> Callable[[Any], Any]:
        return lambda model: harness.accelerate(model, **settings)

    def tea_cache(**settings: Any) -> Callable[[Any], Any]:
        return lambda model: host.attach(model, TeaCache(TeaCacheSettings(**settings)))

    return {
        **{name: preset(name) for name in performance.PRESETS},
        "target 3": preset("target", target_speedup=3.0),
        "cache-dit": cache_dit(),
        "cache-dit 0.6 taylorseer": cache_dit(
            residual_diff_threshold=0.6, calibrator="taylorseer", max_continuous_cached_steps=6
        ),
        "cache-dit dynamic": cache_dit(scm_preset="medium", Bn_compute_blocks=1),
        "cache-dit static": cache_dit(
            scm_preset="fast", scm_policy="static", calibrator="trajectory", corrector=True
        ),
        "teacache": tea_cache(),
        "teacache blend": tea_cache(calibrator="blend", corrector=True),
    }


def hashes(models: list[str], samplers: list[str]) -> Iterator[tuple[str, str]]:
    """Name of a run, and the hash of its latent with the number of computed evaluations."""
    for kind in models:
        demo = performance.DEMOS[kind]()
        prompt = demo.prompts[0]
        for name, accelerate in levers().items():
            model = accelerate(demo.model)
            for sampler in samplers:
                for steps, cfg in ((SHORT, 3.0), (LONG, 1.0)):
                    latent = demo.sample(model, prompt, SEED, cfg, steps, sampler).latent
                    report = harness.report_of(model)
                    digest = hashlib.sha256(latent.float().numpy().tobytes()).hexdigest()[:16]
                    run = f"{kind}, {name}, {sampler}, {steps} steps, cfg {cfg:g}"
                    yield run, f"{digest} {report.computed}/{len(report.evaluations)}"


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=list(performance.MODELS))
    parser.add_argument("--samplers", nargs="+", default=list(SAMPLERS))
    parser.add_argument("--write", type=Path)
    parser.add_argument("--compare", type=Path)


def main(options: argparse.Namespace, environment: Any) -> int:
    found = {}
    kept = json.loads(options.compare.read_text("utf-8")) if options.compare else {}
    different = 0
    for run, value in hashes(options.models, options.samplers):
        found[run] = value
        if run in kept and kept[run] != value:
            different += 1
            say(f"DIFFERENT  {run}: {kept[run]} -> {value}")
    if options.write:
        options.write.write_text(json.dumps(found, indent=1), encoding="utf-8")
    say(f"{len(found)} latents, {len(found.keys() & kept)} compared, {different} different")
    return 1 if different else 0


if __name__ == "__main__":
    harness.run(str(ROOT / "benchmarks" / "latents.py"), add_options, main)

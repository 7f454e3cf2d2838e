"""Presets and targets of Performance Mode on the trained demo model.

What is asked of the pictures are floors below what ``benchmarks/performance.py`` measures.
"""

from __future__ import annotations

import statistics
from typing import Any

import pytest
import tiny_models as tm
import torch
from demo import shapes
from whole import whole

from comfyui_environment import ROOT

MODEL = ROOT / "workflows" / "demo" / "models" / "dit_accel_demo_flux.safetensors"
STEPS, SEED = 28, 3000
PROMPTS = shapes.PROMPTS[:3]
FLOORS = {"quality": 45.0, "balanced": 38.0, "fast": 32.0}
BETTER_THAN_PLAIN = 4.0


@pytest.fixture(scope="module")
def model() -> Any:
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(MODEL))


def sample(
    model: Any, prompt: str, steps: int = STEPS, sampler: str = "euler", cfg: float = 1.0
) -> torch.Tensor:
    import comfy.sample

    def conditioning(text: str) -> list[Any]:
        tokens, pooled = shapes.text_embedding(text)
        return [[tokens, {"pooled_output": pooled}]]

    latent = torch.zeros(1, shapes.LATENT_CHANNELS, shapes.LATENT_SIZE, shapes.LATENT_SIZE)
    noise = comfy.sample.prepare_noise(latent, SEED)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, steps, cfg, sampler, "simple", conditioning(prompt),
            conditioning(shapes.UNCONDITIONAL), latent, disable_pbar=True, seed=SEED,
        )  # fmt: skip


def performance(model: Any, **values: Any) -> Any:
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.performance import PerformanceSettings

    return host.attach_performance(model, PerformanceSettings(**values))


def test_a_preset_is_far_better_than_fewer_steps(model: Any) -> None:
    """One prompt of what the next test measures on three."""
    quick = performance(model, approximation="balanced")
    full, found = sample(model, PROMPTS[0]), sample(quick, PROMPTS[0])
    plain = sample(model, PROMPTS[0], tm.report_of(quick).computed)
    assert tm.report_of(quick).computed < STEPS / 1.5
    assert tm.psnr(full, found) >= tm.psnr(full, plain) + BETTER_THAN_PLAIN


@pytest.mark.parametrize("cfg", [1.0, 3.0])
def test_a_plan_knows_device_and_guidance(model: Any, cfg: float) -> None:
    from dit_acceleration_pack.acceleration.policies.cost import COUNTED, MEASURED

    quick = performance(model, approximation="balanced")
    sample(quick, PROMPTS[0], 8, cfg=cfg)
    report = tm.report_of(quick)
    (plan,) = (notice for notice in report.notices if "plans to compute" in notice)
    if model.load_device.type != "cpu":
        assert COUNTED in plan and report.computed_cost == 1.0
        return
    computed, skipped = MEASURED[0].costs[cfg > 1]
    assert f"costs {skipped:.0%} of a full one, measured on FLUX" in plan
    assert report.computed_cost == computed


@pytest.fixture(scope="module")
def full(model: Any) -> dict[str, torch.Tensor]:
    return {prompt: sample(model, prompt) for prompt in PROMPTS}


@pytest.mark.whole
def test_presets_save_more_and_keep_less_in_order(
    model: Any, full: dict[str, torch.Tensor]
) -> None:
    computed, nearness = [], []
    for preset in ("quality", "balanced", "fast", "ultra"):
        quick = performance(model, approximation=preset)
        psnrs = [tm.psnr(full[p], sample(quick, p)) for p in PROMPTS]
        computed.append(tm.report_of(quick).computed)
        nearness.append(statistics.fmean(psnrs))
        plain = [tm.psnr(full[p], sample(model, p, computed[-1])) for p in PROMPTS]
        assert nearness[-1] >= statistics.fmean(plain) + BETTER_THAN_PLAIN, preset
        assert nearness[-1] >= FLOORS.get(preset, 0.0), preset
    assert computed == sorted(computed, reverse=True) and len(set(computed)) == 4
    assert nearness == sorted(nearness, reverse=True)


@pytest.mark.parametrize(
    ("target", "sampler"),
    [
        (2.0, "heun"),
        *whole(
            (target, sampler)
            for target in (1.5, 2.0, 2.5, 3.0)
            for sampler in ("euler", "dpmpp_2m", "heun", "res_multistep")
            if (target, sampler) != (2.0, "heun")
        ),
    ],
)
def test_targets_keep_their_plan(model: Any, target: float, sampler: str) -> None:
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies.cost import cost_of

    quick = performance(model, approximation="target", target_speedup=target)
    assert sample(quick, PROMPTS[0], 20, sampler).isfinite().all()
    report = tm.report_of(quick)
    cost = cost_of(host.structure_of(model), host.network_of(model), model.load_device.type, 1)
    plan = cost.share(target) * len(report.evaluations)
    assert abs(report.computed - plan) <= 1

"""Wan 2.2's usual graph: a high-noise model for the first steps, a low-noise model for the rest."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tm
import torch

STEPS, SWITCH = 20, 9


def two_samplers(high: Any, low: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """KSampler (Advanced) twice; the latents after each."""
    import comfy.sample

    positive, negative = tm.conditioning("wan", 1), tm.conditioning("wan", 2)

    def run(model: Any, noise: torch.Tensor, latent: torch.Tensor, **options: Any) -> torch.Tensor:
        return comfy.sample.sample(
            model, noise, STEPS, 2.0, "euler", "simple", positive, negative, latent,
            disable_pbar=True, seed=0, **options,
        )  # fmt: skip

    with torch.inference_mode():
        empty = torch.zeros(1, *tm.TINY["wan"].latent)
        noise = comfy.sample.prepare_noise(empty, 0)
        middle = run(high, noise, empty, start_step=0, last_step=SWITCH)
        none = torch.zeros_like(empty)
        end = run(low, none, middle, start_step=SWITCH, disable_noise=True, force_full_denoise=True)
    return middle, end


@pytest.mark.parametrize("calibrator", ["none", "taylorseer", "trajectory"])
def test_each_part_counts_and_warms_up_by_itself(calibrator: str) -> None:
    settings: dict[str, Any] = {
        "residual_diff_threshold": 0.95,
        "max_warmup_steps": 3,
        "calibrator": calibrator,
    }
    high = tm.attach(tm.make_model("wan", seed=1), **settings)
    low = tm.attach(tm.make_model("wan", seed=2), **settings)
    _, end = two_samplers(high, low)
    assert end.isfinite().all()
    for model, steps in ((high, SWITCH), (low, STEPS - SWITCH)):
        report = tm.report_of(model)
        assert report.steps == steps and len(report.evaluations) == steps
        assert [e.step for e in report.evaluations] == list(range(steps))
        assert not any(e.skipped for e in report.evaluations[:3]) and report.skipped >= 2
        assert {e.reason for e in report.evaluations[:3]} <= {"warm-up", "no residual yet"}


def test_nothing_is_carried_over_the_switch() -> None:
    """The second part gives the same whether or not the first was accelerated by the same node."""
    settings = {"residual_diff_threshold": 0.95, "max_warmup_steps": 3}
    model = tm.make_model("wan", seed=1)
    accelerated = tm.attach(model, **settings)
    middle, end = two_samplers(accelerated, accelerated)
    skips = [e.skipped for e in tm.report_of(accelerated).evaluations]
    again, same_end = two_samplers(accelerated, accelerated)
    assert torch.equal(again, middle) and torch.equal(same_end, end)

    fresh = tm.attach(tm.make_model("wan", seed=1), **settings)
    _, fresh_end = two_samplers(accelerated, fresh)
    assert torch.equal(fresh_end, end)
    assert [e.skipped for e in tm.report_of(fresh).evaluations] == skips

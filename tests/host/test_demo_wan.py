"""The trained video model of the demo: stock loading, moving pictures, caching quality.

What is asked of the samples are floors with a margin below what ``benchmarks/video.py`` measures.
"""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tm
import torch
from demo import moving_shapes
from whole import whole

from comfyui_environment import ROOT

MODEL = ROOT / "workflows" / "demo" / "models" / "dit_accel_demo_wan.safetensors"
LARGEST = 12 * 2**20
STEPS, SEED = 28, 7
SWITCH = 12 / STEPS
PROMPT = "red circle moving right"
ENOUGH_PSNR, ENOUGH_SAVED, MARGIN = 45.0, 1.5, 2.0


@pytest.fixture(scope="module")
def model() -> Any:
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(MODEL))


def conditioning(prompt: str) -> list[Any]:
    return [[moving_shapes.text_embedding(prompt), {}]]


def sample(
    parts: list[Any], cfg: float = 1.0, prompt: str = PROMPT, steps: int = STEPS
) -> torch.Tensor:
    """One KSampler, or KSampler (Advanced) twice: high noise up to the switch, then low noise."""
    import comfy.sample

    latent = torch.zeros(1, *moving_shapes.LATENT_SHAPE)
    noise = comfy.sample.prepare_noise(latent, SEED)
    positive, negative = conditioning(prompt), conditioning(moving_shapes.UNCONDITIONAL)
    ends = [steps] if len(parts) == 1 else [round(SWITCH * steps), steps]
    start = 0
    with torch.inference_mode():
        for part, end in zip(parts, ends, strict=True):
            latent = comfy.sample.sample(
                part, noise, steps, cfg, "euler", "simple", positive, negative, latent,
                disable_noise=start > 0, start_step=start, last_step=end,
                force_full_denoise=end == steps, disable_pbar=True, seed=SEED,
            )  # fmt: skip
            start, noise = end, torch.zeros_like(noise)
    return latent


@pytest.fixture(scope="module")
def full(model: Any) -> torch.Tensor:
    return sample([model])


def cover(samples: torch.Tensor, shape: str) -> torch.Tensor:
    """Which pixels have the colour of a shape, frame by frame, as 0 or 1, shape [F, H, W]."""
    colour, _ = moving_shapes.CATALOGUE[shape]
    video = moving_shapes.model_to_video(moving_shapes.host_to_model(samples))[0].movedim(0, -1)
    return ((video - torch.tensor(colour)).norm(dim=-1) < 0.5).float()


def centres(mask: torch.Tensor) -> torch.Tensor:
    """Where the covered pixels are: x and y in 0..1, shape [F, 2]."""
    assert mask.sum(dim=(1, 2)).min() >= 9, "a frame without the shape"
    axis = (torch.arange(mask.shape[-1]) + 0.5) / mask.shape[-1]
    x, y = (mask * axis).sum(dim=(1, 2)), (mask * axis[:, None]).sum(dim=(1, 2))
    return torch.stack([x, y], dim=1) / mask.sum(dim=(1, 2))[:, None]


def test_the_stock_loader_takes_it_for_wan(model: Any) -> None:
    assert MODEL.stat().st_size <= LARGEST
    assert type(model.model.model_config).__name__ == "WAN21_T2V"
    assert len(model.model.diffusion_model.blocks) == 12


@pytest.mark.parametrize(
    ("shape", "motion", "direction"),
    [
        ("blue square", "falling", (0.0, 1.0)),
        *whole(
            [
                ("red circle", "moving right", (1.0, 0.0)),
                ("purple ring", "moving left", (-1.0, 0.0)),
                ("cyan moon", "rising", (0.0, -1.0)),
            ]
        ),
    ],
)
def test_the_prompt_decides_how_it_moves(
    model: Any, shape: str, motion: str, direction: tuple[float, float]
) -> None:
    samples = sample([model], cfg=3.0, prompt=f"{shape} {motion}")
    places = centres(cover(samples, shape))
    along, across = (places @ torch.tensor(d) for d in (direction, direction[::-1]))
    assert (along.diff() > 0).all() and along[-1] - along[0] > 0.25
    assert across.max() - across.min() < 0.1


@pytest.mark.whole
def test_the_triangle_grows(model: Any) -> None:
    samples = sample([model], cfg=3.0, prompt="green triangle growing")
    area = cover(samples, "green triangle").sum(dim=(1, 2))
    assert (area.diff() > 0).all() and area[-1] > 2 * area[0]


def cache_dit(part: Any, calibration: Any) -> Any:
    return tm.attach(
        part,
        calibrator="trajectory",
        residual_diff_threshold=0.12,
        max_continuous_cached_steps=2,
    )


def tea_cache(part: Any, calibration: Any) -> Any:
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
    from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

    settings = TeaCacheSettings(
        calibrator="trajectory", rel_l1_thresh=calibration.thresholds["50%"]
    )
    return host.attach(part, TeaCache(settings, lambda _: calibration.fit()))


@pytest.fixture(scope="module")
def calibration(model: Any) -> Any:
    """What Calibrate TeaCache makes of another prompt."""
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies import calibration
    from dit_acceleration_pack.acceleration.policies.recording import Recorder, Recording

    recording = Recording()
    sample([host.attach(model, Recorder(recording))], prompt="green triangle growing")
    return calibration.calibrate("demo", "Wan", recording.inputs, recording.outputs)


@pytest.mark.parametrize(
    ("graph", "apply"),
    [
        ("one sampler", cache_dit),
        *whole([("one sampler", tea_cache), ("two samplers", cache_dit)]),
        *whole([("two samplers", tea_cache)]),
    ],
)
def test_caching_stays_closer_than_fewer_steps_and_leaves_no_trace(
    model: Any, full: torch.Tensor, calibration: Any, apply: Any, graph: str
) -> None:
    parts = [model, model] if graph == "two samplers" else [model]
    plain = sample(parts) if len(parts) > 1 else full
    accelerated = [apply(part, calibration) for part in parts]
    quick = sample(accelerated)
    reports = [tm.report_of(part) for part in accelerated]
    assert sum(len(report.evaluations) for report in reports) == STEPS
    assert all(report.skipped for report in reports)
    computed = sum(report.computed for report in reports)
    assert computed <= STEPS / ENOUGH_SAVED
    assert tm.psnr(plain, quick) >= ENOUGH_PSNR
    assert tm.psnr(plain, quick) >= tm.psnr(plain, sample(parts, steps=computed)) + MARGIN
    assert torch.equal(sample(accelerated), quick), "run 2 = run 1"
    assert torch.equal(sample(parts), plain), "no trace"
    for module in model.model.diffusion_model.modules():
        assert "forward" not in vars(module)


@pytest.mark.whole
def test_two_samplers_with_nothing_skipped_are_one(model: Any, full: torch.Tensor) -> None:
    """The split schedule takes the same steps, up to the host's scaling of the latent between."""
    assert tm.psnr(full, sample([model, model])) > 80


@pytest.mark.parametrize("preset", ["balanced", *whole(["ultra"])])
def test_presets_are_far_better_than_fewer_steps(
    model: Any, full: torch.Tensor, preset: str
) -> None:
    """A schedule shifted by 8, where a plan by step numbers would lose."""
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.performance import PerformanceSettings

    planned = host.attach_performance(model, PerformanceSettings(approximation=preset))
    accelerated = sample([planned])
    computed = tm.report_of(planned).computed
    assert computed <= STEPS / 2
    plain = sample([model], steps=computed)
    assert tm.psnr(full, accelerated) >= tm.psnr(full, plain) + 4.0

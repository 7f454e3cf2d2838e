"""Every kind of sampler and schedule on the demo model: steps and evaluations are counted right.

What is expected is counted by the test itself, from the model calls that pass by and from what is
known of each solver.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import tiny_models
import torch
from whole import whole

from comfyui_environment import ROOT
from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.policies.cache_dit import CacheDiT
from dit_acceleration_pack.acceleration.policies.masks import preset_mask
from dit_acceleration_pack.acceleration.report import RunReport
from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings

MODEL = ROOT / "workflows" / "demo" / "models" / "dit_accel_demo_flux.safetensors"
STEPS = 12
SIZE = 16
EAGER = CacheDiTSettings(max_warmup_steps=2, residual_diff_threshold=0.6)

once: Callable[[int], int] = lambda steps: steps  # noqa: E731
twice_but_last: Callable[[int], int] = lambda steps: 2 * steps - 1  # noqa: E731

# Evaluations of a schedule that ends at zero, and the name of the solver's function.
SAMPLERS: dict[str, tuple[Callable[[int], int], str]] = {
    "euler": (once, "euler"),
    "heun": (twice_but_last, "heun"),
    "dpm_2": (twice_but_last, "dpm_2"),
    "dpmpp_2m": (once, "dpmpp_2m"),
    "dpmpp_sde": (twice_but_last, "dpmpp_sde"),
    "dpmpp_2s_ancestral": (twice_but_last, "dpmpp_2s_ancestral"),
    "euler_ancestral": (once, "euler_ancestral"),
    "uni_pc": (once, "unipc"),
    "res_multistep": (once, "res_multistep"),
    "lcm": (once, "lcm"),
    "ddim": (once, "euler"),
}
NOISY = ("dpmpp_sde", "dpmpp_2s_ancestral", "euler_ancestral", "lcm")


@pytest.fixture(scope="module")
def model() -> Any:
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(MODEL))


class Run:
    """One accelerated sampling run, with the model calls that the test saw."""

    def __init__(self, model: Any, settings: CacheDiTSettings = EAGER) -> None:
        self.seen: list[float] = []
        watched = tiny_models.watch(
            model, lambda _x, _context, options: self.seen.append(float(options["sigmas"][0]))
        )
        self.model = host.attach(watched, CacheDiT(settings))

    @property
    def report(self) -> RunReport:
        report = host.last_report(self.model)
        assert report is not None and report.outcome == "finished"
        return report

    def sample(self, sampler: str = "euler", steps: int = STEPS, **options: Any) -> torch.Tensor:
        """Sample as KSampler and KSampler (Advanced) do."""
        import comfy.sample

        latent = torch.zeros(1, 16, SIZE, SIZE)
        options = {"cfg": 1.0, "scheduler": "simple", "latent_image": latent, **options}
        noise = comfy.sample.prepare_noise(latent, 0)
        if options.get("disable_noise"):
            noise = torch.zeros_like(noise)
        with torch.inference_mode():
            output = comfy.sample.sample(
                self.model,
                noise,
                steps,
                sampler_name=sampler,
                positive=prompt(1),
                negative=prompt(2),
                disable_pbar=True,
                seed=0,
                **options,
            )
        assert torch.isfinite(output).all()
        return output

    def sample_custom(self, sigmas: Sequence[float], sampler: str = "euler") -> torch.Tensor:
        """Sample as SamplerCustom does."""
        import comfy.sample
        import comfy.samplers

        latent = torch.zeros(1, 16, SIZE, SIZE)
        with torch.inference_mode():
            output = comfy.sample.sample_custom(
                self.model,
                comfy.sample.prepare_noise(latent, 0),
                1.0,
                comfy.samplers.sampler_object(sampler),
                torch.tensor(sigmas),
                prompt(1),
                prompt(2),
                latent,
                disable_pbar=True,
                seed=0,
            )
        assert torch.isfinite(output).all()
        return output

    def check(self, steps: int, evaluations: int) -> None:
        """What holds for every sampler and schedule."""
        report = self.report
        assert report.steps == steps
        assert len(self.seen) == evaluations
        assert [e.sigma for e in report.evaluations] == self.seen
        assert report.computed + report.skipped == evaluations
        positions = [e.position for e in report.evaluations]
        assert positions == sorted(positions)
        assert positions[0] >= 0 and positions[-1] <= steps
        assert not report.evaluations[0].skipped


def prompt(seed: int) -> list[Any]:
    generator = torch.Generator().manual_seed(seed)
    tokens = torch.randn(1, 8, 64, generator=generator)
    return [[tokens, {"pooled_output": torch.randn(1, 64, generator=generator)}]]


def schedule(model: Any, sampler: str, steps: int = STEPS, **options: Any) -> list[float]:
    """Sigmas that KSampler hands to a sampler."""
    import comfy.samplers

    made = comfy.samplers.KSampler(model, steps, "cpu", sampler, "simple", **options)
    return list(made.sigmas.tolist())


def step_in(sigmas: Sequence[float], sigma: float) -> int:
    """The last step of a falling schedule that begins at or above a sigma."""
    begun = [i for i, begin in enumerate(sigmas[:-1]) if begin >= sigma * (1 - 1e-5)]
    return begun[-1] if begun else 0


@pytest.mark.parametrize("cfg", [1.0, *whole([3.0])])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_steps_and_evaluations(model: Any, sampler: str, cfg: float) -> None:
    evaluations, function = SAMPLERS[sampler]
    run = Run(model)
    run.sample(sampler, cfg=cfg)
    run.check(STEPS, evaluations(STEPS))
    sigmas = schedule(model, sampler)
    assert [e.step for e in run.report.evaluations] == [step_in(sigmas, s) for s in run.seen]
    assert run.report.steps_begun == STEPS
    assert run.report.sampler == function
    if sampler not in NOISY:
        assert run.report.skipped > 0


@pytest.mark.slow
def test_every_sampler_of_the_host(model: Any) -> None:
    """No sampler is refused, loses an evaluation or ends in numbers that are none."""
    import comfy.samplers

    for sampler in comfy.samplers.SAMPLER_NAMES:
        run = Run(model)
        run.sample(sampler, steps=6)
        assert [e.sigma for e in run.report.evaluations] == run.seen, sampler
        assert run.report.steps == 6, sampler


@pytest.mark.parametrize(
    "sampler", ["heun", "dpmpp_sde", *whole(s for s in SAMPLERS if s not in ("heun", "dpmpp_sde"))]
)
def test_twice_the_same(model: Any, sampler: str) -> None:
    run = Run(model)
    first, first_report = run.sample(sampler), run.report
    second, second_report = run.sample(sampler), run.report
    assert torch.equal(first, second)
    skips = [[e.skipped for e in r.evaluations] for r in (first_report, second_report)]
    assert skips[0] == skips[1]


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "dpmpp_2s_ancestral"])
def test_warm_up_counts_steps_not_evaluations(model: Any, sampler: str) -> None:
    run = Run(model, CacheDiTSettings(max_warmup_steps=4, residual_diff_threshold=0.99))
    run.sample(sampler)
    early = [e for e in run.report.evaluations if e.step < 4]
    assert len(early) == (7 if sampler == "heun" else 8)
    assert [e.reason for e in early[1:]] == ["warm-up"] * (len(early) - 1)
    assert all(e.reason != "warm-up" for e in run.report.evaluations[len(early) :])


@pytest.mark.parametrize("sampler", ["heun", "dpm_2", "dpmpp_sde"])
def test_static_mask_decides_by_step(model: Any, sampler: str) -> None:
    """All evaluations of a step are treated alike, and as the mask says."""
    run = Run(model, CacheDiTSettings(scm_preset="fast", scm_policy="static"))
    run.sample(sampler)
    run.check(STEPS, 2 * STEPS - 1)
    mask = preset_mask("fast", STEPS)
    assert 0 in mask
    assert [e.skipped for e in run.report.evaluations] == [
        not mask[e.step] for e in run.report.evaluations
    ]
    if sampler == "heun":
        shared: dict[float, set[bool]] = {}
        for e in run.report.evaluations:
            shared.setdefault(e.position, set()).add(e.skipped)
        assert len(shared) == STEPS
        assert all(len(decisions) == 1 for decisions in shared.values())


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_2", "uni_pc"])
def test_part_of_the_noise(model: Any, sampler: str) -> None:
    """``denoise`` 0.5 takes the lower half of a schedule twice as long."""
    run = Run(model)
    run.sample(sampler, denoise=0.5, latent_image=torch.ones(1, 16, SIZE, SIZE))
    run.check(STEPS, SAMPLERS[sampler][0](STEPS))
    sigmas = schedule(model, sampler, denoise=0.5)
    assert len(sigmas) == STEPS + 1 and sigmas[0] < 0.8
    assert [e.step for e in run.report.evaluations] == [step_in(sigmas, s) for s in run.seen]


def test_no_denoising_at_all(model: Any) -> None:
    run = Run(model)
    run.sample("euler", denoise=0.0)
    assert run.seen == []


@pytest.mark.parametrize("force_full_denoise", [False, True])
@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_start_and_end_step(model: Any, sampler: str, force_full_denoise: bool) -> None:
    """KSampler (Advanced): steps 4 to 9 of 12 are a run of five."""
    run = Run(model)
    run.sample(sampler, start_step=4, last_step=9, force_full_denoise=force_full_denoise)
    if sampler == "euler":
        run.check(5, 5)
        assert [e.position for e in run.report.evaluations] == [0, 1, 2, 3, 4]
    elif force_full_denoise:
        run.check(5, 9)
    else:
        # A schedule that ends above zero: the last step's second evaluation is at its target.
        run.check(5, 10)
        assert run.report.evaluations[-1].position == 5
        assert run.report.evaluations[-1].step == 4


def test_two_stages(model: Any) -> None:
    """The second stage continues the picture, not the first stage's steps and residuals."""
    run = Run(model)
    half = run.sample(last_step=6)
    run.check(6, 6)
    run.seen.clear()
    run.sample(start_step=6, disable_noise=True, latent_image=half)
    run.check(6, 6)
    assert [e.reason for e in run.report.evaluations[:2]] == ["no residual yet", "warm-up"]


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_any_falling_sigmas(model: Any, sampler: str) -> None:
    sigmas = [1.0, 0.93, 0.9, 0.6, 0.55, 0.2, 0.1, 0.03, 0.0]
    run = Run(model)
    run.sample_custom(sigmas, sampler)
    run.check(8, SAMPLERS[sampler][0](8))
    assert [e.step for e in run.report.evaluations] == [step_in(sigmas, s) for s in run.seen]


@pytest.mark.parametrize(("sampler", "evaluations"), [("euler", 8), ("heun", 15)])
def test_repeated_sigmas(model: Any, sampler: str, evaluations: int) -> None:
    run = Run(model, CacheDiTSettings(max_warmup_steps=2, calibrator="taylorseer"))
    run.sample_custom([1.0, 0.8, 0.8, 0.5, 0.5, 0.5, 0.2, 0.1, 0.0], sampler)
    run.check(8, evaluations)
    if sampler == "euler":
        assert [e.step for e in run.report.evaluations] == [0, 1, 2, 3, 4, 5, 6, 7]
        # Nothing changed between two evaluations at one sigma.
        assert run.report.evaluations[4].skipped and run.report.evaluations[5].skipped


@pytest.mark.parametrize("calibrator", ["none", "taylorseer", "trajectory", "blend"])
@pytest.mark.parametrize(("sampler", "evaluations"), [("euler", 9), ("heun", 17)])
def test_sigmas_that_rise_again(
    model: Any, sampler: str, evaluations: int, calibrator: str
) -> None:
    settings = CacheDiTSettings(max_warmup_steps=2, calibrator=calibrator)
    run = Run(model, settings)
    run.sample_custom([1.0, 0.8, 0.5, 0.3, 0.8, 0.5, 0.3, 0.2, 0.1, 0.0], sampler)
    run.check(9, evaluations)
    if sampler == "euler":
        assert [e.position for e in run.report.evaluations] == list(range(9))
    else:
        # Every later sigma is the target of one step and the beginning of the next.
        expected = [0.0] + [float(i) for i in range(1, 9) for _ in range(2)]
        assert [e.position for e in run.report.evaluations] == expected


@pytest.mark.parametrize("sampler", NOISY)
def test_says_why_noise_leaves_little_to_skip(model: Any, sampler: str) -> None:
    run = Run(model, CacheDiTSettings(residual_diff_threshold=0.01))
    run.sample(sampler)
    assert run.report.skipped == 0
    assert f"{SAMPLERS[sampler][1]} adds fresh noise" in run.report.sentence()


def test_says_that_the_steps_are_too_few(model: Any) -> None:
    run = Run(model, CacheDiTSettings(max_warmup_steps=4))
    run.sample(steps=4)
    run.check(4, 4)
    sentence = run.report.sentence()
    assert "4 steps, warm-up 4: only 0 could be skipped" in sentence
    assert "a model of so few steps is fast already" in sentence


def test_says_that_the_threshold_is_low(model: Any) -> None:
    run = Run(model, CacheDiTSettings(residual_diff_threshold=0.001))
    run.sample()
    assert "raise residual_diff_threshold" in run.report.sentence()


def test_says_that_a_threshold_of_zero_never_skips(model: Any) -> None:
    run = Run(model, CacheDiTSettings(residual_diff_threshold=0.0))
    run.sample()
    assert "residual_diff_threshold is 0" in run.report.sentence()


def test_says_that_a_mask_needs_more_steps(model: Any) -> None:
    run = Run(model, CacheDiTSettings(scm_preset="fast", scm_policy="static"))
    run.sample(steps=6)
    run.check(6, 6)
    assert any("needs at least 8 steps" in notice for notice in run.report.notices)

"""The corrector behind the caching nodes, in runs of the real host.

How near pictures come is asked of the trained demo model, of means over a few prompts: what one
prompt gains lies between nothing and several dB.
"""

from __future__ import annotations

import gc
import statistics
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import tiny_models as tm
import torch
from demo import moving_shapes, shapes

from comfyui_environment import ROOT
from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.forecasts import corrector as correcting
from dit_acceleration_pack.acceleration.policies.cache_dit import CacheDiT
from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings, TeaCacheSettings

MODELS = ROOT / "workflows" / "demo" / "models"
PROMPTS, SEED, STEPS = shapes.PROMPTS[:3], 3000, 28
SIZE = shapes.LATENT_SIZE
STATIC: dict[str, Any] = {"scm_preset": "fast", "scm_policy": "static"}

TECHNIQUES: dict[str, Callable[[bool], Any]] = {
    "Cache-DiT": lambda on: CacheDiT(CacheDiTSettings(corrector=on)),
    "TeaCache": lambda on: TeaCache(TeaCacheSettings(corrector=on)),
}


@pytest.fixture(scope="module")
def model() -> Any:
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(MODELS / "dit_accel_demo_flux.safetensors"))


def conditioning(prompt: str, **options: Any) -> list[Any]:
    tokens, pooled = shapes.text_embedding(prompt)
    return [[tokens, {"pooled_output": pooled, **options}]]


def sample(
    model: Any,
    prompt: str,
    sampler: str = "euler",
    latent: torch.Tensor | None = None,
    noise: torch.Tensor | None = None,
    positive: list[Any] | None = None,
    **options: Any,
) -> torch.Tensor:
    """Sample as KSampler does."""
    import comfy.sample

    if latent is None:
        latent = torch.zeros(1, shapes.LATENT_CHANNELS, SIZE, SIZE)
    if noise is None:
        noise = comfy.sample.prepare_noise(latent, SEED)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, STEPS, 1.0, sampler, "simple", positive or conditioning(prompt),
            conditioning(shapes.UNCONDITIONAL), latent, disable_pbar=True, seed=SEED, **options,
        )  # fmt: skip


def gains(
    model: Any,
    technique: Callable[[bool], Any],
    run: Callable[[Any, str], torch.Tensor],
    prompts: Sequence[str] = PROMPTS,
) -> list[float]:
    """By how many dB every prompt comes nearer to its full run, with as much skipped."""
    without, corrected = host.attach(model, technique(False)), host.attach(model, technique(True))
    found = []
    for prompt in prompts:
        full = run(model, prompt)
        before = tm.psnr(full, run(without, prompt))
        found.append(tm.psnr(full, run(corrected, prompt)) - before)
        assert tm.report_of(corrected).skipped >= tm.report_of(without).skipped - 1 > 0
    return found


def gradient() -> torch.Tensor:
    """A mask ``[1, H, W]`` from nothing on the left to all on the right."""
    return torch.linspace(0, 1, SIZE).expand(1, SIZE, SIZE)


def right_half() -> torch.Tensor:
    return (gradient() > 0.5).float()


def test_a_picture_comes_nearer_at_the_same_work(model: Any) -> None:
    """One prompt, one that gains, of what the next test measures on three."""
    (found,) = gains(model, TECHNIQUES["Cache-DiT"], sample, PROMPTS[:1])
    assert found >= 1.0


@pytest.mark.whole
@pytest.mark.parametrize("technique", TECHNIQUES.values(), ids=TECHNIQUES)
def test_pictures_come_nearer_at_the_same_work(
    model: Any, technique: Callable[[bool], Any]
) -> None:
    found = gains(model, technique, sample)
    assert statistics.fmean(found) >= 1.0 and min(found) > -0.5, found


@pytest.mark.whole
def test_heun_comes_nearer_too(model: Any) -> None:
    found = gains(model, TECHNIQUES["Cache-DiT"], lambda m, p: sample(m, p, "heun"))
    assert statistics.fmean(found) >= 0.5, found


EDITS: dict[str, Callable[[], dict[str, Any]]] = {
    "img2img": lambda: {"denoise": 0.6},
    "inpainting": lambda: {"noise_mask": right_half()},
    "inpainting, img2img": lambda: {"noise_mask": right_half(), "denoise": 0.6},
}


@pytest.mark.whole
@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edits_of_a_picture_lose_nothing(model: Any, edit: Callable[[], dict[str, Any]]) -> None:
    picture = sample(model, shapes.PROMPTS[5])
    found = gains(
        model, TECHNIQUES["Cache-DiT"], lambda m, p: sample(m, p, latent=picture, **edit())
    )
    assert statistics.fmean(found) >= 0.0 and min(found) > -1.0, found


@pytest.mark.whole
def test_a_soft_mask_stays_near(model: Any) -> None:
    """A mask between 0 and 1 mixes what the sampler adds up, so what is owed is not what is given.

    It may cost some of what is left to err there, of which there is little.
    """
    picture = sample(model, shapes.PROMPTS[5])
    corrected = host.attach(model, TECHNIQUES["Cache-DiT"](True))
    for prompt in PROMPTS:
        full = sample(model, prompt, latent=picture, noise_mask=gradient())
        found = sample(corrected, prompt, latent=picture, noise_mask=gradient())
        assert tm.psnr(full, found) >= 50.0


def test_what_a_mask_keeps_is_kept(model: Any) -> None:
    picture = sample(model, shapes.PROMPTS[5])
    corrected = host.attach(model, TECHNIQUES["Cache-DiT"](True))
    found = sample(corrected, PROMPTS[0], latent=picture, noise_mask=right_half())
    half = SIZE // 2
    assert tm.report_of(corrected).skipped > 0
    torch.testing.assert_close(found[..., :half], picture[..., :half], rtol=0, atol=1e-5)
    assert (found[..., half:] - picture[..., half:]).abs().max() > 0.1


@pytest.mark.whole
def test_regional_prompts_lose_nothing(model: Any) -> None:
    """Evaluated on a part of the latent."""
    right = conditioning(shapes.PROMPTS[6], area=(SIZE, SIZE // 2, 0, SIZE // 2), strength=1.0)

    def run(model: Any, prompt: str) -> torch.Tensor:
        return sample(model, prompt, positive=conditioning(prompt) + right)

    found = gains(model, TECHNIQUES["Cache-DiT"], run)
    assert statistics.fmean(found) >= 0.0 and min(found) > -1.0, found


@pytest.mark.whole
def test_pictures_of_a_batch_are_corrected_each_on_its_own(model: Any) -> None:
    """With the same steps skipped, a picture of a batch is the one sampled alone."""
    settings = CacheDiTSettings(corrector=True, **STATIC)
    corrected = host.attach(model, CacheDiT(settings))
    noise = torch.randn(4, shapes.LATENT_CHANNELS, SIZE, SIZE, generator=generator(1))
    empty = torch.zeros_like(noise)
    together = sample(corrected, PROMPTS[0], latent=empty, noise=noise)
    for i in range(4):
        alone = sample(corrected, PROMPTS[0], latent=empty[:1], noise=noise[i : i + 1])
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-3, atol=1e-3)
    plainly = host.attach(model, CacheDiT(CacheDiTSettings(**STATIC)))
    uncorrected = sample(plainly, PROMPTS[0], latent=empty, noise=noise)
    assert (uncorrected - together).abs().max() > 0.01


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.every_host
@pytest.mark.parametrize("sampler", ["euler", "heun"])
@pytest.mark.parametrize("name", ["flux", "wan"])
def test_nothing_skipped_changes_no_bit(name: str, sampler: str) -> None:
    model = tm.make_model(name)
    plain = tm.sample(model, name, cfg=3.0, sampler=sampler)
    corrected = tm.attach(model, residual_diff_threshold=0.0, corrector=True)
    assert torch.equal(tm.sample(corrected, name, cfg=3.0, sampler=sampler), plain)
    assert tm.report_of(corrected).skipped == 0


@pytest.mark.every_host
def test_no_tensor_of_the_corrector_survives_its_run(monkeypatch: pytest.MonkeyPatch) -> None:
    kept: list[weakref.ref[torch.Tensor]] = []
    computed = correcting.Corrector.computed

    def spy(self: Any, *args: Any) -> torch.Tensor:
        output = computed(self, *args)
        kept.extend(weakref.ref(tensor) for tensor in self.tensors())
        return output

    monkeypatch.setattr(correcting.Corrector, "computed", spy)
    model = tm.make_model("flux")
    plain = tm.sample(model, "flux")
    before = {name: set(vars(module)) for name, module in model.model.named_modules()}
    corrected = tm.attach(model, residual_diff_threshold=0.9, corrector=True)
    first = tm.sample(corrected, "flux")
    again = tm.sample(corrected, "flux")
    gc.collect()
    assert len(kept) >= 6 and not [ref for ref in kept if ref() is not None]
    assert {name: set(vars(module)) for name, module in model.model.named_modules()} == before
    assert torch.equal(first, again) and not torch.equal(first, plain)
    assert torch.equal(tm.sample(model, "flux"), plain)


@pytest.mark.parametrize("node", TECHNIQUES)
def test_a_sampler_it_does_not_know_runs_as_without_it_and_is_named(node: str) -> None:
    model = tm.make_model("flux")
    technique = TECHNIQUES[node]
    without, corrected = host.attach(model, technique(False)), host.attach(model, technique(True))
    sampler = "dpmpp_2s_ancestral"
    assert sampler not in correcting.SAMPLERS
    expected = tm.sample(without, "flux", sampler=sampler)
    assert torch.equal(tm.sample(corrected, "flux", sampler=sampler), expected)
    told = [n for n in tm.report_of(corrected).notices if "corrector" in n]
    assert len(told) == 1 and sampler in told[0] and "euler" in told[0]
    assert not [n for n in tm.report_of(without).notices if "corrector" in n]
    tm.sample(corrected, "flux")
    assert not [n for n in tm.report_of(corrected).notices if "corrector" in n]


@pytest.mark.whole
def test_context_windows_are_corrected_each_on_its_own() -> None:
    import comfy.sd

    video = comfy.sd.load_diffusion_model(str(MODELS / "dit_accel_demo_wan.safetensors"))
    video.model_options["context_handler"] = tm.context_windows("standard_static", 3, 1)
    latent = torch.zeros(1, *moving_shapes.LATENT_SHAPE)
    prompt = [[moving_shapes.text_embedding("red circle moving right"), {}]]

    def run(model: Any, _: str = "") -> torch.Tensor:
        return sample(model, "", latent=latent, positive=prompt)

    (gain,) = gains(video, TECHNIQUES["Cache-DiT"], run, ("",))
    assert gain >= 2.0


def test_every_sampler_that_it_knows_is_in_the_help() -> None:
    page = (ROOT / "web" / "docs" / "AccelApplyCacheDiT.md").read_text(encoding="utf-8")
    told = page.partition("### Corrector")[2].partition("###")[0]
    assert [name for name in correcting.SAMPLERS if f"`{name}`" not in told] == []

"""Progressive Resolution on the host's models: only the network's call is small."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from typing import Any

import pytest
import tiny_models as tm
import torch
from progressive_runs import LATENTS, SIZE, Seen, attach, counts, report_of, run
from whole import first

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.progressive import FLOW, Corner
from dit_acceleration_pack.acceleration.schedule import Schedule

pytestmark = pytest.mark.every_host

# ------------------------------------------------------------------ off, and the same again


@pytest.mark.parametrize("name", LATENTS)
def test_off_is_the_model_as_it_was(name: str) -> None:
    model = tm.make_model(name)
    plain = run(model, name, cfg=2.0)
    assert torch.equal(run(attach(model, mode="off"), name, cfg=2.0), plain)
    # Also where it takes the place of another one.
    switched = attach(attach(model), mode="off")
    assert torch.equal(run(switched, name, cfg=2.0), plain)


@pytest.mark.parametrize("name", LATENTS)
def test_the_same_seed_gives_the_same_picture(name: str) -> None:
    model = tm.make_model(name)
    plain = run(model, name, cfg=2.0)
    quick = attach(model)
    first = run(quick, name, cfg=2.0)
    assert first.shape == plain.shape and first.isfinite().all()
    assert not torch.equal(first, plain)
    small = report_of(quick).coarse
    assert small and small[0].evaluations >= 2
    run(quick, name, seed=5, batch=2)
    assert torch.equal(run(quick, name, cfg=2.0), first)
    assert torch.equal(run(model, name, cfg=2.0), plain)


def test_a_lock_leaves_it_out(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tm.make_model("flux")
    plain = run(model)
    monkeypatch.setenv("DIT_ACCEL_LOCK_LOSSY", "1")
    locked = attach(model)
    assert torch.equal(run(locked), plain)
    lever = host.lever_of(locked, host.PROGRESSIVE_KEY)
    assert lever is not None and lever.last_report is not None
    assert "DIT_ACCEL_LOCK_LOSSY" in lever.last_report.sentence()


# ------------------------------------------------------------------ what the network gets


def test_the_network_gets_the_corner_with_matched_noise() -> None:
    """The first evaluation by hand: pure noise, so the corner of the seed's noise as it is."""
    import comfy.sample

    model = tm.make_model("flux")
    first: list[torch.Tensor] = []
    watched = tm.watch(model, lambda x, _context, _options: first.append(x.clone()))
    run(attach(watched))
    noise = comfy.sample.prepare_noise(torch.zeros(1, *LATENTS["flux"]), 0)
    corner = Corner(SIZE, (16, 16))
    assert first[0].shape[-2:] == (16, 16)
    assert torch.allclose(first[0].cpu(), corner.down(noise), atol=1e-5)
    assert first[-1].shape[-2:] == SIZE


def test_sigmas_and_the_schedule_are_those_of_the_small_latent() -> None:
    model = tm.make_model("flux")
    plain, seen = Seen(model), Seen(model)
    run(plain.model)
    run(attach(seen.model))
    for full, got, schedule, size in zip(
        plain.sigmas, seen.sigmas, seen.schedules, seen.sizes, strict=True
    ):
        small = full > 0.8
        assert size == ((16, 16) if small else SIZE)
        assert got == pytest.approx(FLOW.matched(full, 2.0) if small else full, rel=1e-6)
        assert any(abs(got - sigma) < 1e-6 for sigma in schedule)


def test_the_result_goes_back_into_the_corner() -> None:
    """With a network that finds a flat picture, every preview is flat and as bright."""
    from comfy.patcher_extension import WrappersMP

    model = tm.make_model("flux").clone()
    model.add_wrapper_with_key(
        WrappersMP.APPLY_MODEL, "tests_flat", lambda _e, x, *_a, **_k: torch.full_like(x, 0.5)
    )
    previews: list[torch.Tensor] = []
    end = run(
        attach(model), callback=lambda _i, denoised, _x, _n: previews.append(denoised.clone())
    )
    assert all(preview.shape == (1, *LATENTS["flux"]) for preview in previews)
    assert all(torch.allclose(preview, torch.tensor(0.5), atol=1e-4) for preview in previews)
    assert end.std() < 1e-3


def test_odd_sizes_and_batches() -> None:
    model = tm.make_model("flux")
    seen = Seen(model)
    output = run(attach(seen.model), latent=(16, 63, 41), batch=3, cfg=3.0)
    assert output.shape == (3, 16, 63, 41) and output.isfinite().all()
    assert seen.sizes[0] == (32, 22) and seen.sizes[-1] == (63, 41)


def test_levels_begin_smaller() -> None:
    model = tm.make_model("flux")
    seen = Seen(model)
    run(attach(seen.model, levels=2, switch_sigma=0.7, min_full_steps=1), steps=20)
    order = list(dict.fromkeys(seen.sizes))
    assert order == [(8, 8), (16, 16), SIZE]


def test_the_report_says_where_and_why() -> None:
    quick = attach(tm.make_model("flux"))
    run(quick)
    report = report_of(quick)
    assert report.outcome == "finished" and report.switch.startswith("full size from sigma 0.8 on")
    assert sum(counts(quick).values()) == 8 and set(counts(quick)) == {"16 x 16", "32 x 32"}
    assert all(stage.seconds > 0 for stage in report.stages)
    guess = attach(tm.make_model("qwen_image"), switch_sigma=0.0)
    run(guess, "qwen_image")
    assert "a guess" in report_of(guess).text()
    known = attach(tm.make_model("wan"), mode="auto")
    run(known, "wan", steps=20)
    assert report_of(known).mode == "balanced" and "Wan 2.1" in report_of(known).switch


# ------------------------------------------------------------------ samplers


def test_every_sampler() -> None:
    import comfy.samplers

    model = tm.make_model("flux")
    quick = attach(model)
    shape = (1, *LATENTS["flux"])
    for sampler in comfy.samplers.SAMPLER_NAMES:
        shapes: set[tuple[int, ...]] = set()

        def preview(_i: int, denoised: Any, x: Any, _n: int, met: Any = shapes) -> None:
            met.update((tuple(denoised.shape), tuple(x.shape)))

        output = run(quick, sampler=sampler, steps=6, cfg=2.0, callback=preview)
        assert output.shape == shape and output.isfinite().all(), sampler
        assert shapes <= {shape}, sampler
        assert report_of(quick).coarse, sampler


@pytest.mark.parametrize("sampler", ["euler", "heun", "dpm_2"])
def test_two_samplers_are_one(sampler: str) -> None:
    """A run that is split in mid-run, above, at and below the switch."""
    model = tm.make_model("flux")
    quick = attach(model, min_full_steps=0)
    whole = run(quick, sampler=sampler, steps=12)
    for at in (2, 6, 9):
        middle = run(quick, sampler=sampler, steps=12, last_step=at)
        end = continued(quick, middle, sampler, at)
        assert tm.psnr(whole, end) > 120.0


def continued(model: Any, middle: torch.Tensor, sampler: str, at: int) -> torch.Tensor:
    """The rest of a run of 12 steps, as KSampler (Advanced) does it."""
    import comfy.sample

    with torch.inference_mode():
        return comfy.sample.sample(
            model, torch.zeros_like(middle), 12, 1.0, sampler, "simple",
            tm.conditioning("flux", 1), tm.conditioning("flux", 2), middle, disable_noise=True,
            start_step=at, force_full_denoise=True, disable_pbar=True, seed=0,
        )  # fmt: skip


def test_two_experts() -> None:
    """A first expert that ends above the switch stays small; what it hands on has the full size."""
    high = attach(tm.make_model("wan", seed=1), switch_sigma=0.85, min_full_steps=6)
    low = attach(tm.make_model("wan", seed=2), switch_sigma=0.85, min_full_steps=6)
    middle = run(high, "wan", steps=20, last_step=8)
    assert middle.shape == (1, *LATENTS["wan"])
    assert counts(high) == {"16 x 16": 8}
    import comfy.sample

    with torch.inference_mode():
        end = comfy.sample.sample(
            low, torch.zeros_like(middle), 20, 1.0, "euler", "simple", tm.conditioning("wan", 1),
            tm.conditioning("wan", 2), middle, disable_noise=True, start_step=8,
            force_full_denoise=True, disable_pbar=True, seed=0,
        )  # fmt: skip
    assert end.isfinite().all() and counts(low)["32 x 32"] >= 6


# ------------------------------------------------------------------ latents and masks


@pytest.mark.parametrize("denoise", [0.5, 0.8, 0.95])
def test_image_to_image(denoise: float) -> None:
    import comfy.sample

    model = tm.make_model("flux")
    quick = attach(model, switch_sigma=0.85)
    picture = torch.randn(1, *LATENTS["flux"], generator=torch.Generator().manual_seed(3))
    noise = comfy.sample.prepare_noise(picture, 0)
    with torch.inference_mode():
        output = comfy.sample.sample(
            quick, noise, 12, 1.0, "euler", "simple", tm.conditioning("flux", 1),
            tm.conditioning("flux", 2), picture, denoise=denoise, disable_pbar=True, seed=0,
        )  # fmt: skip
    assert output.isfinite().all()
    if denoise == 0.5:
        assert "begins above the switch" in report_of(quick).sentence()
    else:
        assert report_of(quick).coarse


@pytest.mark.parametrize("differential", [False, True])
def test_a_noise_mask_protects_the_picture(differential: bool) -> None:
    import comfy.sample

    model = tm.make_model("flux").clone()
    if differential:
        model.set_model_denoise_mask_function(
            lambda sigma, mask, extra_options: (mask >= 1 - float(sigma[0])).to(mask.dtype)
        )
    quick = attach(model)
    picture = torch.randn(1, *LATENTS["flux"], generator=torch.Generator().manual_seed(3))
    mask = torch.zeros(1, 1, *SIZE)
    mask[..., 16:, :] = 1.0
    noise = comfy.sample.prepare_noise(picture, 0)
    with torch.inference_mode():
        output = comfy.sample.sample(
            quick, noise, 8, 1.0, "euler", "simple", tm.conditioning("flux", 1),
            tm.conditioning("flux", 2), picture, noise_mask=mask, disable_pbar=True, seed=0,
        )  # fmt: skip
    assert report_of(quick).coarse and output.isfinite().all()
    assert torch.allclose(output[..., :15, :], picture[..., :15, :], atol=1e-4)
    assert not torch.allclose(output[..., 16:, :], picture[..., 16:, :], atol=0.1)


# ------------------------------------------------------------------ the end


class BlockError(Exception):
    """Raised in a block."""


def test_the_picture_does_not_depend_on_who_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    quick = attach(tm.make_model("flux"))
    watched = run(quick)

    def fails(*_: Any) -> float:
        raise ValueError("no such place")

    monkeypatch.setattr(Schedule, "locate", fails)
    assert torch.equal(run(quick), watched)


def cancel() -> BaseException:
    import comfy.model_management

    error: BaseException = comfy.model_management.InterruptProcessingException()
    return error


def out_of_memory() -> BaseException:
    return torch.OutOfMemoryError("no memory")


@pytest.mark.parametrize("make", [cancel, out_of_memory])
def test_what_is_for_the_host_is_not_taken_for_a_model_that_cannot_be_small(
    make: Callable[[], BaseException],
) -> None:
    """Said once, in a small evaluation: Cancel is an ordinary Exception in older hosts."""
    quick, count = attach(tm.make_model("flux")), [0]

    def raises_once(*_: Any) -> None:
        count[0] += 1
        if count[0] == 2:
            raise make()

    with pytest.raises(type(make())):
        run(tm.watch(quick, raises_once))
    assert count == [2]


@pytest.mark.parametrize("make", [BlockError, cancel, out_of_memory])
@pytest.mark.parametrize("call", first([2, 6]))
def test_an_error_leaves_nothing(make: Callable[[], BaseException], call: int) -> None:
    """In a small evaluation and in a full one."""
    model = tm.make_model("flux")
    quick = attach(model)
    first, plain = run(quick), run(model)
    before = {name: set(vars(module)) for name, module in model.model.named_modules()}
    options = {key: dict(value) for key, value in quick.model_options.items() if value}
    kept: list[weakref.ref[Any]] = []
    count = [0]

    def raises(x: torch.Tensor, _context: Any, given: dict[str, Any]) -> None:
        count[0] += 1
        kept.append(weakref.ref(given[host.PROGRESSIVE_KEY]))
        if count[0] >= call:
            raise make()

    with pytest.raises(type(make())):
        run(tm.watch(quick, raises))
    gc.collect()
    assert kept and all(ref() is None for ref in kept)
    assert {name: set(vars(module)) for name, module in model.model.named_modules()} == before
    assert {key: dict(value) for key, value in quick.model_options.items() if value} == options
    assert report_of(quick).outcome == "interrupted"
    assert torch.equal(run(quick), first) and torch.equal(run(model), plain)

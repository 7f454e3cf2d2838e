"""Bad input is refused before sampling starts, or said plainly."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tm
import torch


def error_text(call: Any) -> str:
    from dit_acceleration_pack.acceleration.errors import AccelerationError

    with pytest.raises(AccelerationError) as error:
        call()
    return str(error.value)


def test_more_blocks_than_the_model_has() -> None:
    model = tm.make_model("flux")
    text = error_text(lambda: tm.attach(model, Fn_compute_blocks=4, Bn_compute_blocks=2))
    assert "is 6" in text and "has 5 blocks" in text


def test_bins_that_do_not_sum_to_the_steps_stop_before_the_first_evaluation() -> None:
    accelerated = tm.attach(tm.make_model("flux"), scm_compute_bins="4,1", scm_cache_bins="3")
    evaluations: list[Any] = []
    watched = tm.watch(accelerated, lambda *a: evaluations.append(a))
    text = error_text(lambda: tm.sample(watched, "flux", steps=10))
    assert "sum to 8 steps" in text and "has 10" in text
    assert not evaluations


def test_cache_dit_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    from dit_acceleration_pack.acceleration.cache_dit import library

    monkeypatch.setattr(library, "is_installed", lambda: False)
    text = error_text(lambda: tm.attach(tm.make_model("flux")))
    assert "pip install 'cache-dit" in text


def test_only_cache_dit_itself_needs_the_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.cache_dit import library
    from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
    from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

    monkeypatch.setattr(library, "is_installed", lambda: False)
    settings = TeaCacheSettings(rel_l1_thresh=0.5, calibrator="taylorseer")
    accelerated = host.attach(tm.make_model("flux"), TeaCache(settings))
    tm.sample(accelerated, "flux", steps=6)
    assert tm.report_of(accelerated).skipped


def test_something_that_is_no_model() -> None:
    assert "needs a MODEL" in error_text(lambda: tm.attach(object()))


def tiny_unet() -> Any:
    """A small Stable Diffusion 1.5 UNet: a model, but no diffusion transformer."""
    import comfy.model_patcher
    import comfy.supported_models

    config = comfy.supported_models.SD15(
        {
            "image_size": 32,
            "in_channels": 4,
            "out_channels": 4,
            "model_channels": 32,
            "num_res_blocks": [1, 1],
            "channel_mult": [1, 1],
            "transformer_depth": [1, 0],
            "transformer_depth_output": [1, 1, 0, 0],
            "transformer_depth_middle": 1,
            "num_heads": 2,
            "use_spatial_transformer": True,
            "context_dim": 24,
            "use_linear_in_transformer": False,
            "adm_in_channels": None,
            "use_temporal_attention": False,
            "legacy": False,
        }
    )
    config.set_inference_dtype(torch.float32, None)
    model = config.get_model({}, "", device=torch.device("cpu"))
    tm.randomize(model.diffusion_model)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def test_a_unet_runs_uncached_and_says_so() -> None:
    model = tiny_unet()
    accelerated = tm.attach(model)
    arguments: dict[str, Any] = {
        "steps": 4,
        "latent": (4, 8, 8),
        "positive": tm.conditioning("flux", 1),
        "negative": tm.conditioning("flux", 2),
    }
    assert torch.equal(
        tm.sample(accelerated, "flux", **arguments), tm.sample(model, "flux", **arguments)
    )
    report = tm.report_of(accelerated)
    assert "UNetModel is not a diffusion transformer" in report.sentence()
    assert report.skipped == 0 and report.computed == 4


def test_few_steps_are_explained() -> None:
    accelerated = tm.attach(tm.make_model("flux"))
    tm.sample(accelerated, "flux", steps=4)
    assert "4 steps, warm-up 4: only 0 could be skipped" in tm.report_of(accelerated).sentence()


def test_scm_below_eight_steps_goes_on_without_it() -> None:
    accelerated = tm.attach(
        tm.make_model("flux"),
        scm_preset="fast",
        scm_policy="static",
        max_warmup_steps=1,
        residual_diff_threshold=0.95,
    )
    tm.sample(accelerated, "flux", steps=6)
    report = tm.report_of(accelerated)
    assert any("at least 8 steps" in notice for notice in report.notices)
    assert report.skipped > 0


@pytest.mark.parametrize("settings", [{"start_percent": 0.5}, {"end_percent": 0.5}])
def test_percent_window(settings: dict[str, Any]) -> None:
    model = tm.make_model("flux")
    accelerated = tm.attach(model, residual_diff_threshold=0.98, max_warmup_steps=1, **settings)
    tm.sample(accelerated, "flux", steps=12)
    records = tm.report_of(accelerated).evaluations
    boundary = model.get_model_object("model_sampling").percent_to_sigma(0.5)
    late = [e.skipped for e in records if e.sigma < boundary]
    early = [e.skipped for e in records if e.sigma > boundary]
    inside, outside = (late, early) if "start_percent" in settings else (early, late)
    assert any(inside) and not any(outside)

"""Caching with Progressive Resolution: every size is a stage with steps of its own."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
import tiny_models as tm
import torch
from progressive_runs import LATENTS, attach, counts, report_of, run

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.performance import PerformanceSettings
from dit_acceleration_pack.acceleration.policies.masks import preset_mask
from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
from dit_acceleration_pack.acceleration.report import RunReport
from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

STEPS = 20
SWITCH = 0.7
NOT_KNOWN = "no residual yet"


def skips(report: RunReport) -> list[bool]:
    return [e.skipped for e in report.evaluations]


def cached(model: Any, **settings: Any) -> Any:
    return tm.attach(model, **{"residual_diff_threshold": 0.99, **settings})


@pytest.fixture(scope="module")
def coarse() -> int:
    """Steps at half the side: those that begin above the switch."""
    model = attach(tm.make_model("flux"), switch_sigma=SWITCH)
    run(model, steps=STEPS)
    found = counts(model)["16 x 16"]
    assert 8 <= found <= STEPS - 8
    return found


@pytest.mark.parametrize("order", ["caching last", "caching first"])
def test_warm_up_begins_again_at_the_switch(coarse: int, order: str) -> None:
    """Warm-up 3, at most 1 in a row: computed 0 1 2, then every second, in each stage anew."""
    settings: dict[str, Any] = {"max_warmup_steps": 3, "max_continuous_cached_steps": 1}
    model = tm.make_model("flux")
    if order == "caching last":
        model = cached(attach(model, switch_sigma=SWITCH), **settings)
    else:
        model = attach(cached(model, **settings), switch_sigma=SWITCH)
    output = run(model, steps=STEPS)
    report = tm.report_of(model)

    def stage(steps: int) -> list[bool]:
        return [False] * 3 + [i % 2 == 0 for i in range(steps - 3)]

    assert skips(report) == stage(coarse) + stage(STEPS - coarse)
    assert [e.step for e in report.evaluations] == list(range(STEPS))
    assert [e.position for e in report.evaluations] == list(range(STEPS))
    assert [e.reason for e in report.evaluations if e.reason == NOT_KNOWN] == [NOT_KNOWN] * 2
    # The sampler's sigmas, not those that the network was told.
    sigmas = [e.sigma for e in report.evaluations]
    assert sigmas[0] == 1.0 and all(a > b for a, b in itertools.pairwise(sigmas))
    assert sigmas[coarse - 1] > SWITCH >= sigmas[coarse]
    assert not report.notices and report.steps_begun == STEPS
    assert torch.equal(run(model, steps=STEPS), output)


@pytest.mark.parametrize("sampler", ["euler", "heun"])
def test_step_plans_are_those_of_each_stage(coarse: int, sampler: str) -> None:
    model = attach(tm.make_model("flux"), switch_sigma=SWITCH)
    model = cached(model, scm_preset="fast", scm_policy="static")
    run(model, steps=STEPS, sampler=sampler)
    mask = preset_mask("fast", coarse) + preset_mask("fast", STEPS - coarse)
    for e in tm.report_of(model).evaluations:
        first = e.reason == NOT_KNOWN
        assert e.skipped == (not mask[e.step] and not first), e


def test_own_bins_are_those_of_the_run(coarse: int) -> None:
    """Bins name the steps of the whole run; at the switch nothing is known and it computes."""
    model = attach(tm.make_model("flux"), switch_sigma=SWITCH)
    model = cached(
        model, scm_policy="static", scm_compute_bins="2,1,1,1,1", scm_cache_bins="3,4,3,4"
    )
    run(model, steps=STEPS)
    plan = [*"11000100001000100001"]
    expected = [one == "0" for one in plan]
    expected[coarse] = False
    # Until the next computed step, what was computed at the switch serves.
    assert skips(tm.report_of(model)) == expected


def test_teacache_computes_the_ends_of_each_stage(coarse: int) -> None:
    model = attach(tm.make_model("flux"), switch_sigma=SWITCH)
    settings = TeaCacheSettings(rel_l1_thresh=50.0, coefficients="raw")
    model = host.attach(model, TeaCache(settings))
    run(model, steps=STEPS)
    report = tm.report_of(model)
    ends = {0, coarse - 1, coarse, STEPS - 1}
    assert {e.step for e in report.evaluations if not e.skipped} >= ends
    assert report.skipped > STEPS / 2
    assert [e.reason for e in report.evaluations if e.reason == "last step"] == ["last step"] * 2


@pytest.mark.parametrize("name", ["flux", "wan"])
@pytest.mark.parametrize("order", ["before", "behind"])
def test_performance_mode_plans_each_stage(name: str, order: str) -> None:
    model = tm.make_model(name)
    settings = PerformanceSettings(approximation="quality")
    alone = host.attach_performance(model, settings)
    run(alone, name, steps=STEPS)
    if order == "before":
        both = attach(host.attach_performance(model, settings), switch_sigma=SWITCH)
    else:
        both = host.attach_performance(attach(model, switch_sigma=SWITCH), settings)
    output = run(both, name, steps=STEPS)
    report, small = tm.report_of(both), report_of(both).coarse[0].evaluations
    assert abs(report.computed - tm.report_of(alone).computed) <= 2
    for part in (report.evaluations[:small], report.evaluations[small:]):
        assert not part[0].skipped and any(e.skipped for e in part)
        assert part[0].reason == NOT_KNOWN
    progressive = run(attach(model, switch_sigma=SWITCH), name, steps=STEPS)
    assert tm.psnr(progressive, output) > 28.0


@pytest.mark.parametrize("calibrator", ["none", "taylorseer", "trajectory", "blend"])
def test_nothing_is_carried_over_the_switch(calibrator: str) -> None:
    """What is done in the first stage does not change the second, given the same latent."""
    settings = {"calibrator": calibrator, "max_warmup_steps": 1}
    model = tm.make_model("flux")
    both = cached(attach(model, switch_sigma=SWITCH), **settings)
    run(both, steps=STEPS)
    small = report_of(both).coarse[0].evaluations
    middle = run(attach(model, switch_sigma=SWITCH), steps=STEPS, last_step=small)

    import comfy.sample

    def rest(accelerated: Any) -> torch.Tensor:
        with torch.inference_mode():
            return comfy.sample.sample(
                accelerated, torch.zeros_like(middle), STEPS, 1.0, "euler", "simple",
                tm.conditioning("flux", 1), tm.conditioning("flux", 2), middle,
                disable_noise=True, start_step=small, force_full_denoise=True,
                disable_pbar=True, seed=0,
            )  # fmt: skip

    assert torch.equal(rest(both), rest(cached(model, **settings)))


def test_percents_are_those_of_the_run(coarse: int) -> None:
    """start_percent 0.3 is the same sigma of the sampler at every size."""
    model = attach(tm.make_model("flux"), switch_sigma=SWITCH)
    model = cached(model, max_warmup_steps=0, start_percent=0.3)
    run(model, steps=STEPS)
    sampling = model.get_model_object("model_sampling")
    begin = float(sampling.percent_to_sigma(0.3))
    early = [e for e in tm.report_of(model).evaluations if e.sigma > begin]
    assert early and all(e.reason == "before start_percent" for e in early)
    assert any(e.skipped for e in tm.report_of(model).evaluations[len(early) : coarse])


def test_a_stage_that_comes_back_begins_anew() -> None:
    """A picture that is taken back to noise is small again, and nothing of before is reused."""
    import comfy.sample
    import comfy.samplers

    model = cached(attach(tm.make_model("flux"), switch_sigma=SWITCH, min_full_steps=0))
    sigmas = torch.tensor([1.0, 0.97, 0.94, 0.91, 0.6, 0.58, 0.56, 0.94, 0.92, 0.9, 0.5, 0.0])
    empty = torch.zeros(1, *LATENTS["flux"])
    with torch.inference_mode():
        comfy.sample.sample_custom(
            model, comfy.sample.prepare_noise(empty, 0), 1.0,
            comfy.samplers.sampler_object("euler"), sigmas, tm.conditioning("flux", 1),
            tm.conditioning("flux", 2), empty, disable_pbar=True, seed=0,
        )  # fmt: skip
    report = tm.report_of(model)
    anew = [e.step for e in report.evaluations if e.reason == NOT_KNOWN]
    assert anew == [0, 4, 7, 10] and counts(model) == {"16 x 16": 7, "32 x 32": 4}


def test_prompts_apart_and_together() -> None:
    """Two prompts apart, and cfg: branches of each stage are the stage's own."""
    model = cached(attach(tm.make_model("flux"), switch_sigma=SWITCH), max_warmup_steps=1)
    with tm.split_batches(model, when=lambda n: n % 3 == 0):
        output = run(model, steps=STEPS, cfg=3.0, latent=LATENTS["flux"])
    assert output.isfinite().all()
    report = tm.report_of(model)
    assert not any("went wrong" in notice for notice in report.notices)
    assert {e.branch for e in report.evaluations} >= {"uncond+cond"}


def test_a_target_counts_what_small_pictures_give(coarse: int) -> None:
    """A target is that of the whole run, so caching wins less where sizes win some of it."""

    def planned(model: Any, **settings: Any) -> RunReport:
        model = host.attach_performance(model, PerformanceSettings(**settings))
        run(model, steps=STEPS)
        return tm.report_of(model)

    model = tm.make_model("flux")
    small = attach(model, switch_sigma=SWITCH)
    gain = STEPS / (STEPS - coarse * 3 / 4)
    together = planned(small, approximation="target", target_speedup=2.5)
    left = 2.5 / gain
    assert 1.2 < left < 2.5
    sentence = (
        f"asked 2.5 times: smaller pictures give {gain:.2g}, caching is planned for {left:.2g}"
    )
    assert sentence in together.text()
    alone = planned(model, approximation="target", target_speedup=2.5)
    assert together.skipped < alone.skipped and "asked" not in alone.text()
    # What the sizes give is enough: nothing is left for caching.
    enough = planned(small, approximation="target", target_speedup=gain - 0.1)
    assert enough.skipped == 0
    # A preset says what caching does, beside whatever else there is.
    preset = planned(small, approximation="balanced")
    assert "smaller pictures" not in preset.text() and preset.skipped

"""Models that make several things in one latent, such as sound and picture, in the real host."""

from __future__ import annotations

import math
from typing import Any

import pytest
import tiny_models as tm
import torch

from dit_acceleration_pack.acceleration import corrector as correcting
from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.families.minimax import Shifted
from dit_acceleration_pack.acceleration.policies.cache_dit import CacheDiT
from dit_acceleration_pack.acceleration.settings import CacheDiTSettings

STEPS = 24
PLAN: dict[str, Any] = {"scm_preset": "medium", "scm_policy": "static", "calibrator": "blend"}
# Tiny models of random weights: what is asked is that no part falls behind the other.
BEHIND = 12.0


def parts(name: str, flat: torch.Tensor) -> tuple[torch.Tensor, ...]:
    return torch.split(flat, [math.prod(shape) for shape in tm.TINY[name].latent], dim=1)


def nearness(name: str, full: torch.Tensor, found: torch.Tensor) -> list[float]:
    """Signal over error in dB, of every part."""
    pairs = zip(parts(name, full), parts(name, found), strict=True)
    return [10 * math.log10((a.square().mean() / (a - b).square().mean()).item()) for a, b in pairs]


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "heun"])
@pytest.mark.parametrize("name", ["minimax_h3", "ltxav", "triposplat"])
def test_every_part_stays_as_near_as_the_first(name: str, sampler: str) -> None:
    model = tm.make_model(name)
    full = tm.sample(model, name, steps=STEPS, sampler=sampler)
    corrected = tm.attach(model, corrector=True, **PLAN)
    first, second = nearness(name, full, tm.sample(corrected, name, steps=STEPS, sampler=sampler))
    assert tm.report_of(corrected).skipped > 5
    assert second > first - BEHIND, (first, second)


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "heun"])
def test_sound_on_a_schedule_of_its_own_is_not_harmed(sampler: str) -> None:
    """Weighed by the picture's sigmas it lost 25 to 30 dB."""
    name = "minimax_h3"
    model = tm.make_model(name)
    full = tm.sample(model, name, steps=STEPS, sampler=sampler)
    found = {}
    for on in (False, True):
        attached = tm.attach(model, corrector=on, **PLAN)
        found[on] = nearness(name, full, tm.sample(attached, name, steps=STEPS, sampler=sampler))
    assert found[True][1] > found[False][1] - 6.0, found


def test_the_report_says_by_what_each_part_is_corrected() -> None:
    told = {}
    for name in ("minimax_h3", "ltxav"):
        corrected = tm.attach(tm.make_model(name), corrector=True, **PLAN)
        tm.sample(corrected, name, steps=STEPS)
        told[name] = [n for n in tm.report_of(corrected).notices if "corrector" in n]
    assert told["minimax_h3"] == [
        "the corrector works on picture by the sampler's sigmas, sound by own sigmas"
    ]
    assert told["ltxav"] == [], "both parts have the sampler's"


@pytest.mark.parametrize("shifts", [(12.0, 3.0), (7.0, 2.0)], ids=str)
def test_the_noise_of_the_sound_is_what_the_host_runs_it_on(
    shifts: tuple[float, float],
) -> None:
    minimax = pytest.importorskip("comfy.ldm.minimax.model")
    ours = Shifted(*shifts)
    for sigma in (1e-4, 0.2, 0.7, 0.95, 1.0):
        assert ours.sigma(sigma) == pytest.approx(minimax.time_shift_sigma(sigma, *shifts))
        assert ours.slope(sigma) == pytest.approx(minimax.time_shift_slope(sigma, *shifts))


def test_shifts_set_on_the_model_reach_the_corrector(monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    computed = correcting.Corrector.computed

    def spy(self: Any, *args: Any) -> torch.Tensor:
        seen.append(self.noise)
        return computed(self, *args)

    monkeypatch.setattr(correcting.Corrector, "computed", spy)
    model = tm.make_model("minimax_h3").clone()
    options = model.model_options.setdefault("transformer_options", {})
    options.update(minimax_h3_sigma_shift_video=9.0, minimax_h3_sigma_shift_audio=2.0)
    tm.sample(host.attach(model, CacheDiT(CacheDiTSettings(corrector=True))), "minimax_h3")
    assert set(seen) == {None, Shifted(9.0, 2.0)}


def test_parts_that_no_family_describes_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """As they would be of a model that is found by probing."""
    from dataclasses import replace

    from dit_acceleration_pack.acceleration import latent_parts, run

    name = "minimax_h3"
    stretches_of = latent_parts.stretches_of

    def undescribed(noisy: Any, family: Any, network: Any) -> Any:
        return stretches_of(noisy, replace(family, parts=()), network)

    model = tm.make_model(name)
    plain = tm.attach(model, **PLAN)
    without = parts(name, tm.sample(plain, name, steps=STEPS))
    monkeypatch.setattr(run, "stretches_of", undescribed)
    corrected = tm.attach(model, corrector=True, **PLAN)
    found = parts(name, tm.sample(corrected, name, steps=STEPS))
    # The two meet in the network, so the second moves a little with the first.
    assert (found[0] - without[0]).abs().max() > 5 * (found[1] - without[1]).abs().max()
    (told,) = [n for n in tm.report_of(corrected).notices if "corrector" in n]
    assert told.endswith("part 2 not, as their sigmas are not known")


@pytest.mark.parametrize("name", ["minimax_h3", "ltxav"])
def test_nothing_skipped_changes_no_bit(name: str) -> None:
    model = tm.make_model(name)
    plain = tm.sample(model, name, sampler="dpmpp_2m")
    corrected = tm.attach(model, residual_diff_threshold=0.0, corrector=True)
    assert torch.equal(tm.sample(corrected, name, sampler="dpmpp_2m"), plain)

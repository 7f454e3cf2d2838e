"""Models that make several things in one latent, such as sound and picture, in the real host."""

from __future__ import annotations

import math
from typing import Any

import pytest
import tiny_models as tm
import torch
from whole import whole

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


@pytest.mark.parametrize("sampler", ["heun", *whole(["euler", "dpmpp_2m"])])
@pytest.mark.parametrize("name", ["minimax_h3", "ltxav", "triposplat"])
def test_every_part_stays_as_near_as_the_first(name: str, sampler: str) -> None:
    model = tm.make_model(name)
    full = tm.sample(model, name, steps=STEPS, sampler=sampler)
    corrected = tm.attach(model, corrector=True, **PLAN)
    first, second = nearness(name, full, tm.sample(corrected, name, steps=STEPS, sampler=sampler))
    assert tm.report_of(corrected).skipped > 5
    assert second > first - BEHIND, (first, second)


@pytest.mark.parametrize("sampler", ["heun", *whole(["euler", "dpmpp_2m"])])
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


def test_the_report_says_what_is_left_alone() -> None:
    told = {}
    for name in ("minimax_h3", "ltxav"):
        corrected = tm.attach(tm.make_model(name), corrector=True, **PLAN)
        tm.sample(corrected, name, steps=STEPS)
        told[name] = [n for n in tm.report_of(corrected).notices if "corrector" in n]
    assert told["minimax_h3"] == [
        "the corrector leaves sound alone, as its noise is not the sampler's"
    ]
    assert told["ltxav"] == [], "both parts have the sampler's"


@pytest.mark.parametrize("name", ["minimax_h3", "ltxav"])
def test_nothing_skipped_changes_no_bit(name: str) -> None:
    model = tm.make_model(name)
    plain = tm.sample(model, name, sampler="dpmpp_2m")
    corrected = tm.attach(model, residual_diff_threshold=0.0, corrector=True)
    assert torch.equal(tm.sample(corrected, name, sampler="dpmpp_2m"), plain)

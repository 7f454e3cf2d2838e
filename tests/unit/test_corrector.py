"""Giving back what skipped evaluations got wrong."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch

from dit_acceleration_pack.acceleration.corrector import Corrector, interpolation

SIGMAS = tuple(1 - i / 12 for i in range(13))
SHIFTED = tuple(8 * s / (1 + 7 * s) for s in SIGMAS)
Velocity = Callable[[float], float]


def euler(
    sigmas: Sequence[float], velocity: Velocity, computed: set[int], corrector: Corrector | None
) -> torch.Tensor:
    """Sample ``dx/dσ = velocity(σ)``; what is skipped takes the last computed velocity."""
    x = torch.zeros(2, 3)
    last = 0.0
    for i, (sigma, target) in enumerate(itertools.pairwise(sigmas)):
        last = velocity(sigma) if i in computed else last
        denoised = x - sigma * torch.full_like(x, last)
        before = denoised.clone()
        if corrector is not None and i in computed:
            denoised = corrector.computed(sigma, target, x, denoised)
        elif corrector is not None:
            corrector.skipped(sigma, target, x, denoised)
            assert torch.equal(denoised, before)
        x = x + (target - sigma) * (x - denoised) / sigma
    return x


@pytest.mark.parametrize("sigmas", [SIGMAS, SHIFTED], ids=["even", "shifted"])
@pytest.mark.parametrize("computed", [{0, 3, 6, 9, 11}, {0, 1, 11}, {0, 11}], ids=str)
def test_a_velocity_linear_in_sigma_is_given_back_whole(
    sigmas: tuple[float, ...], computed: set[int]
) -> None:
    def velocity(sigma: float) -> float:
        return 3.0 - 2.0 * sigma

    full = euler(sigmas, velocity, set(range(12)), None)
    torch.testing.assert_close(euler(sigmas, velocity, computed, Corrector()), full)
    assert (euler(sigmas, velocity, computed, None) - full).abs().min() > 0.01


def test_order_2_gives_back_a_quadratic_velocity_and_order_1_most_of_it() -> None:
    def velocity(sigma: float) -> float:
        return 1.0 + sigma - 3.0 * sigma**2

    computed = {0, 1, 4, 8, 11}
    full = euler(SIGMAS, velocity, set(range(12)), None)
    held = (euler(SIGMAS, velocity, computed, None) - full).abs().max()
    linear = (euler(SIGMAS, velocity, computed, Corrector(order=1)) - full).abs().max()
    assert linear < held / 4
    computed = {0, 1, 2, 4, 8, 11}
    torch.testing.assert_close(euler(SIGMAS, velocity, computed, Corrector()), full)


def test_nothing_skipped_changes_no_bit() -> None:
    corrector = Corrector()
    for sigma, target in itertools.pairwise(SIGMAS):
        x, denoised = torch.randn(1, 4), torch.randn(1, 4)
        assert corrector.computed(sigma, target, x, denoised) is denoised


def test_what_is_owed_waits_for_a_step_of_some_width() -> None:
    corrector = Corrector()
    x, denoised = torch.ones(1, 2), torch.zeros(1, 2)
    corrector.computed(1.0, 0.9, x, denoised)
    corrector.skipped(0.9, 0.8, x, denoised + 0.3)
    assert corrector.computed(0.8, 0.8, x, denoised) is denoised
    assert not torch.equal(corrector.computed(0.8, 0.7, x, denoised), denoised)


def test_skipping_before_anything_is_known_owes_nothing() -> None:
    corrector = Corrector()
    x, denoised = torch.ones(1, 2), torch.zeros(1, 2)
    corrector.skipped(1.0, 0.9, x, denoised)
    assert corrector.computed(0.9, 0.8, x, denoised) is denoised


def test_forgetting_owes_nothing_and_keeps_nothing() -> None:
    corrector = Corrector()
    x, denoised = torch.ones(1, 2), torch.zeros(1, 2)
    corrector.computed(1.0, 0.9, x, denoised)
    corrector.skipped(0.9, 0.8, x, denoised + 1)
    assert len(corrector.tensors()) == 2
    corrector.forget()
    assert corrector.tensors() == []
    assert corrector.computed(0.8, 0.7, x, denoised) is denoised


def test_the_tensors_of_the_host_are_left_alone() -> None:
    corrector = Corrector()
    x, denoised = torch.randn(1, 2), torch.randn(1, 2)
    kept = x.clone(), denoised.clone()
    corrector.computed(1.0, 0.9, x, denoised)
    corrector.skipped(0.9, 0.7, x, denoised)
    corrector.computed(0.7, 0.5, x, denoised)
    assert torch.equal(x, kept[0]) and torch.equal(denoised, kept[1])


def test_interpolation_weights() -> None:
    places = [0.2, 0.5, 1.0]
    for power in range(3):
        value = sum(w * p**power for w, p in zip(interpolation(places, 0.7), places, strict=True))
        assert math.isclose(value, 0.7**power)
    assert interpolation([0.4], 9.0) == [1.0]

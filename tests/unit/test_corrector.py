"""Giving back what skipped evaluations got wrong."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch

from dit_acceleration_pack.acceleration.corrector import Corrector

# To some noise that is left: the very last step takes the result as it is, whatever was before.
SIGMAS = tuple(1 - 0.07 * i for i in range(13))
SHIFTED = tuple(8 * s / (1 + 7 * s) for s in SIGMAS)
Result = Callable[[float], float]


def sampled(
    sigmas: Sequence[float],
    result: Result,
    computed: set[int],
    given: Corrector | None,
    looks_back: bool = False,
) -> torch.Tensor:
    """Sample with a model whose denoised result is a function of sigma alone.

    What is skipped takes the last computed result. ``looks_back`` samples as DPM-Solver++(2M) does
    (arXiv 2211.01095), which mixes each result with the one before.
    """
    x = torch.zeros(2, 3, dtype=torch.float64)
    last, before = 0.0, None
    for i, (sigma, target) in enumerate(itertools.pairwise(sigmas)):
        last = result(sigma) if i in computed else last
        denoised = torch.full_like(x, last)
        if given is not None and i in computed:
            denoised = given.computed(sigma, target, denoised)
        elif given is not None:
            given.skipped(sigma, target, denoised)
        towards = denoised
        if looks_back and before is not None:
            share = math.log(sigma / target) / (2 * math.log(sigmas[i - 1] / sigma))
            towards = (1 + share) * denoised - share * before
        x = target / sigma * x + (1 - target / sigma) * towards
        before = denoised
    return x


@pytest.mark.parametrize("sigmas", [SIGMAS, SHIFTED], ids=["even", "shifted"])
@pytest.mark.parametrize("computed", [{0, 3, 6, 9, 11}, {0, 1, 9, 11}, {0, 9, 11}], ids=str)
def test_a_result_linear_in_sigma_is_given_back_whole(
    sigmas: tuple[float, ...], computed: set[int]
) -> None:
    def result(sigma: float) -> float:
        return 3.0 - 2.0 * sigma

    full = sampled(sigmas, result, set(range(12)), None)
    torch.testing.assert_close(sampled(sigmas, result, computed, Corrector()), full)
    assert (sampled(sigmas, result, computed, None) - full).abs().min() > 0.01


@pytest.mark.parametrize("looks_back", [False, True], ids=["euler", "dpmpp_2m"])
@pytest.mark.parametrize("computed", [{0, 1, 4, 7, 9, 10, 11}, {0, 1, 2, 5, 7, 9, 10, 11}], ids=str)
def test_most_of_a_curved_result_is_given_back(looks_back: bool, computed: set[int]) -> None:
    def result(sigma: float) -> float:
        return 3.0 - 2.0 * sigma - sigma**2

    full = sampled(SIGMAS, result, set(range(12)), None, looks_back)
    held = sampled(SIGMAS, result, computed, None, looks_back) - full
    given = sampled(SIGMAS, result, computed, Corrector(), looks_back) - full
    assert given.abs().max() < held.abs().max() / 4


def test_nothing_skipped_changes_no_bit() -> None:
    given = Corrector()
    for sigma, target in itertools.pairwise(SIGMAS):
        denoised = torch.randn(1, 4)
        assert given.computed(sigma, target, denoised) is denoised


def test_a_step_that_ends_without_noise_gives_nothing_back() -> None:
    given, denoised = Corrector(), torch.zeros(1, 2)
    given.computed(0.3, 0.2, denoised)
    given.skipped(0.2, 0.1, denoised + 1)
    assert given.computed(0.1, 0.0, denoised) is denoised


def test_what_is_owed_waits_for_a_step_of_some_width() -> None:
    given, denoised = Corrector(), torch.zeros(1, 2)
    given.computed(1.0, 0.9, denoised)
    given.skipped(0.9, 0.8, denoised + 0.3)
    assert given.computed(0.8, 0.8, denoised) is denoised
    assert not torch.equal(given.computed(0.8, 0.7, denoised), denoised)


@pytest.mark.parametrize(
    ("gap", "now"),
    [(((0.5, 0.4),), 0.7), (((0.9, 0.8),), 0.85), (((0.7, 0.6),), 0.7000001)],
    ids=["rose again", "gap beyond", "same place"],
)
def test_what_does_not_lie_between_known_places_is_let_go(
    gap: tuple[tuple[float, float], ...], now: float
) -> None:
    given, denoised = Corrector(), torch.zeros(1, 2)
    given.computed(0.7, 0.6, denoised)
    for sigma, target in gap:
        given.skipped(sigma, target, denoised + 0.3)
    assert given.computed(now, now - 0.1, denoised) is denoised
    assert given.computed(now - 0.1, now - 0.2, denoised) is denoised


def test_skipping_before_anything_is_known_owes_nothing() -> None:
    given, denoised = Corrector(), torch.zeros(1, 2)
    given.skipped(1.0, 0.9, denoised)
    assert given.computed(0.9, 0.8, denoised) is denoised


def test_forgetting_owes_nothing_and_keeps_nothing() -> None:
    given, denoised = Corrector(), torch.zeros(1, 2)
    given.computed(1.0, 0.9, denoised)
    given.skipped(0.9, 0.8, denoised + 1)
    assert len(given.tensors()) == 2
    given.forget()
    assert given.tensors() == []
    assert given.computed(0.8, 0.7, denoised) is denoised


def test_the_tensors_of_the_host_are_left_alone() -> None:
    given, denoised = Corrector(), torch.randn(1, 2)
    kept = denoised.clone()
    given.computed(1.0, 0.9, denoised)
    given.skipped(0.9, 0.8, denoised)
    first = given.computed(0.8, 0.7, denoised + 1)
    taken = first.clone()
    first.add_(5)  # a sampler or a later wrapper may write into what it was given
    given.skipped(0.7, 0.6, denoised)
    second = given.computed(0.6, 0.5, denoised + 1)
    assert torch.equal(denoised, kept)
    assert (second - taken).abs().max() < 2

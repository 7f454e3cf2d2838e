"""Giving back what skipped evaluations got wrong."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch

from dit_acceleration_pack.acceleration.forecasts import corrector
from dit_acceleration_pack.acceleration.forecasts.corrector import SAMPLERS, Corrector, leave_parts

# To some noise that is left: the very last step takes the result as it is, whatever was before.
SIGMAS = tuple(1 - 0.07 * i for i in range(13))
SHIFTED = tuple(8 * s / (1 + 7 * s) for s in SIGMAS)
Result = Callable[[float], float]


def sampled(
    sigmas: Sequence[float],
    result: Result,
    computed: set[int],
    given: Corrector | None,
    sampler: str = "euler",
) -> torch.Tensor:
    """Sample with a model whose denoised result is a function of sigma alone.

    What is skipped takes the last computed result. The samplers that look back are written down
    here as their papers do: DPM-Solver++(2M) (arXiv 2211.01095) mixes each result with the one
    before, the exponential multistep method (arXiv 2308.02157) has weights b₁ and b₂.
    """
    x = torch.zeros(2, 3, dtype=torch.float64)
    last, before = 0.0, None
    for i, (sigma, target) in enumerate(itertools.pairwise(sigmas)):
        last = result(sigma) if i in computed else last
        denoised = torch.full_like(x, last)
        if given is not None:
            note = given.computed if i in computed else given.skipped
            denoised = note(sigma, target, denoised)
        h = math.log(sigma / target)
        if before is None or sampler == "euler":
            x = target / sigma * x + (1 - target / sigma) * denoised
        elif sampler == "dpmpp_2m":
            r = math.log(sigmas[i - 1] / sigma) / h
            towards = (1 + 1 / (2 * r)) * denoised - 1 / (2 * r) * before
            x = target / sigma * x + (1 - target / sigma) * towards
        else:
            c = -math.log(sigmas[i - 1] / sigma) / h
            one = (1 - math.exp(-h)) / h
            two = (1 - one) / h
            x = math.exp(-h) * x + h * ((one - two / c) * denoised + two / c * before)
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


@pytest.mark.parametrize("sampler", ["dpmpp_2m", "res_multistep"])
@pytest.mark.parametrize("sigmas", [SIGMAS, SHIFTED], ids=["even", "shifted"])
def test_samplers_that_look_back_step_by_interpolated_results(
    sampler: str, sigmas: tuple[float, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    def result(sigma: float) -> float:
        return 3.0 - 2.0 * sigma

    monkeypatch.setattr(corrector, "REPLACED", 1.0)  # the formula; half-way is what was measured
    full = sampled(sigmas, result, set(range(12)), None, sampler)
    # They still hold what was given back in the step before, so some results must follow a gap.
    computed = {0, 3, 6, 8, 9, 10, 11}
    given = Corrector(SAMPLERS[sampler])
    torch.testing.assert_close(sampled(sigmas, result, computed, given, sampler), full)
    assert (sampled(sigmas, result, computed, None, sampler) - full).abs().min() > 0.001


@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m", "res_multistep"])
@pytest.mark.parametrize("computed", [{0, 1, 4, 7, 9, 10, 11}, {0, 1, 2, 5, 7, 9, 10, 11}], ids=str)
def test_most_of_a_curved_result_is_given_back(sampler: str, computed: set[int]) -> None:
    def result(sigma: float) -> float:
        return 3.0 - 2.0 * sigma - sigma**2

    full = sampled(SIGMAS, result, set(range(12)), None, sampler)
    held = sampled(SIGMAS, result, computed, None, sampler) - full
    given = Corrector(SAMPLERS[sampler])
    given = sampled(SIGMAS, result, computed, given, sampler) - full
    # Half of a sampler's look back stays at the forecast, see REPLACED.
    least = 4 if sampler == "euler" else 2
    assert given.abs().max() < held.abs().max() / least


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_nothing_skipped_changes_no_bit(sampler: str) -> None:
    given = Corrector(SAMPLERS[sampler])
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
    given, denoised = Corrector(SAMPLERS["dpmpp_2m"]), torch.zeros(1, 2)
    given.computed(1.0, 0.9, denoised)
    given.skipped(0.9, 0.8, denoised + 1)
    given.computed(0.8, 0.7, denoised + 2)
    given.skipped(0.7, 0.6, denoised + 1)
    assert len(given.tensors()) == 4
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


def test_what_is_given_back_never_makes_a_result_infinite() -> None:
    given = Corrector(SAMPLERS["dpmpp_2m"])
    denoised = torch.full((1, 2), 6e4, dtype=torch.float16)
    given.computed(1.0, 0.9, denoised)
    given.skipped(0.9, 0.8, -denoised)
    for sigma in (0.8, 0.7, 0.6):
        assert given.computed(sigma, sigma - 0.1, denoised).isfinite().all()


def test_parts_with_noise_of_their_own_are_left_alone() -> None:
    came, gave = torch.zeros(1, 1, 5), torch.ones(1, 1, 5)
    found = leave_parts(gave, came, [3, 2], [False, True])
    assert found.flatten().tolist() == [1.0, 1.0, 1.0, 0.0, 0.0]
    assert leave_parts(gave, came, [3, 2], [False, False]) is gave
    assert leave_parts(gave, came, [4, 2], [False, True]) is came, "another latent"

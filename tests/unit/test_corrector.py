"""Giving back what skipped evaluations got wrong."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence

import pytest
import torch

from dit_acceleration_pack.acceleration import corrector
from dit_acceleration_pack.acceleration.corrector import SAMPLERS, Corrector
from dit_acceleration_pack.acceleration.families.minimax import Shifted

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


# ---------------------------------------------------------------- noise of a part's own

NOISE = Shifted(12.0, 3.0)
STEPS = 24
TWELVE = tuple(12 * s / (1 + 11 * s) for s in (1 - i / STEPS for i in range(STEPS)))
COMPUTED = {0, 1, 2, 4, 7, 10, 13, 16, 19, 22}


def sampled_by_velocity(
    velocity: Result, computed: set[int], given: Corrector | None, hold: bool = True
) -> torch.Tensor:
    """Sample as the host does where the noise is s(σ) and the model's velocity is known.

    What is skipped takes the velocity of the last computed one, or with ``hold`` off the right one.
    """
    x = torch.ones(2, 3, dtype=torch.float64)
    last = 0.0
    for i, (sigma, target) in enumerate(itertools.pairwise(TWELVE)):
        if i in computed or not hold:
            last = velocity(NOISE.sigma(sigma))
        denoised = x - sigma * NOISE.slope(sigma) * last
        if given is not None:
            note = given.computed if i in computed else given.skipped
            denoised = note(sigma, target, denoised, x)
        x = x + (x - denoised) / sigma * (target - sigma)
    return x


def test_noise_of_its_own_is_the_shift_of_the_even_grid() -> None:
    for even in (0.05, 0.5, 0.9):
        sigma = 12 * even / (1 + 11 * even)
        assert NOISE.sigma(sigma) == pytest.approx(3 * even / (1 + 2 * even))
        wide = NOISE.sigma(sigma + 1e-6) - NOISE.sigma(sigma - 1e-6)
        assert NOISE.slope(sigma) == pytest.approx(wide / 2e-6, rel=1e-4)
    assert NOISE.sigma(1.0) == 1.0 and NOISE.sigma(0.0) == 0.0
    assert math.isfinite(NOISE.sigma(12 / 11)) and math.isfinite(NOISE.slope(12 / 11))


def test_exact_forecasts_of_a_perfect_model_owe_nothing() -> None:
    """By the sampler's sigmas alone the corrector would take some of what was right."""
    exact = sampled_by_velocity(lambda _: 2.0, COMPUTED, None, hold=False)
    by_own = sampled_by_velocity(lambda _: 2.0, COMPUTED, Corrector(noise=NOISE), hold=False)
    torch.testing.assert_close(by_own, exact, rtol=1e-12, atol=1e-12)
    by_samplers = sampled_by_velocity(lambda _: 2.0, COMPUTED, Corrector(), hold=False)
    assert (by_samplers - exact).abs().min() > 0.01


def test_most_of_a_velocity_linear_in_the_own_noise_is_given_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Not all: the samples within a gap have gone another way by then, and stay as they are."""

    def velocity(own: float) -> float:
        return 3.0 - 2.0 * own

    computed = COMPUTED | {23}  # the last step ends without noise and gives nothing back
    full = sampled_by_velocity(velocity, set(range(STEPS)), None)
    held = sampled_by_velocity(velocity, computed, None) - full
    half = sampled_by_velocity(velocity, computed, Corrector(noise=NOISE)) - full
    monkeypatch.setattr(corrector, "GIVEN_BACK", 1.0)
    whole = sampled_by_velocity(velocity, computed, Corrector(noise=NOISE)) - full
    assert held.abs().min() > 0.05
    assert whole.abs().max() < held.abs().min() / 4
    torch.testing.assert_close(half, (held + whole) / 2)


def test_noise_of_its_own_needs_the_sample() -> None:
    with pytest.raises(ValueError, match="sample x"):
        Corrector(noise=NOISE).computed(1.0, 0.9, torch.zeros(1, 2))


def test_a_schedule_that_begins_without_noise_is_let_go() -> None:
    given, zeros = Corrector(noise=NOISE), torch.zeros(1, 2)
    given.computed(0.7, 0.6, zeros, zeros)
    given.skipped(0.6, 0.5, zeros + 1, zeros)
    assert given.computed(0.0, 0.5, zeros, zeros) is zeros


# ---------------------------------------------------------------- what is no number


@pytest.mark.parametrize("noise", [None, NOISE], ids=["sampler's", "own"])
@pytest.mark.parametrize("sampler", ["euler", "dpmpp_2m"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, 3e38])
@pytest.mark.parametrize("at", range(4))
def test_what_is_no_number_does_not_spread(
    at: int, bad: float, sampler: str, noise: Shifted | None
) -> None:
    """A result that the host made finite stays finite, and nothing is kept of the other."""
    given, x = Corrector(SAMPLERS[sampler], noise), torch.zeros(1, 3)
    clean = Corrector(SAMPLERS[sampler], noise)
    computed = {0, 2, 4, 6, 8, 10, 12}
    found = []
    for i, (sigma, target) in enumerate(itertools.pairwise(SIGMAS)):
        denoised = torch.tensor([[0.1, 0.2, 0.3]]) * (i + 1) ** 2
        spoilt = denoised.clone()
        if i == at:
            spoilt[0, 1] = -bad
            x = torch.full_like(x, 1.0)
        notes = (c.computed if i in computed else c.skipped for c in (given, clean))
        got, kept = (n(sigma, target, d, x) for n, d in zip(notes, (spoilt, denoised), strict=True))
        assert torch.equal(got[:, ::2], kept[:, ::2])
        if i != at:
            assert got.isfinite().all()
            found.append(got)
    # What a sampler looks back at fades from step to step; else nothing of it is left.
    if sampler == "euler":
        assert torch.equal(found[-1], kept)
    elif not math.isfinite(bad):
        torch.testing.assert_close(found[-1], kept, rtol=1e-3, atol=0.0)

"""The spectral core of Progressive Resolution, against scipy in float64 and by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.fft
import torch

from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.progressive import (
    FLOW,
    VARIANCE,
    Corner,
    PowerLaw,
    ProgressiveReport,
    ProgressiveSettings,
    choose,
    coarse_side,
    fit,
    packed_size,
    switches,
)
from dit_acceleration_pack.acceleration.progressive.corner import corner_matrix, dct_matrix
from dit_acceleration_pack.acceleration.report import StageReport
from dit_acceleration_pack.acceleration.schedule import Stage

LAW = PowerLaw(203.615097, 1.915461)


def by_scipy(x: torch.Tensor, small: tuple[int, int]) -> np.ndarray:
    """The low corner of ``[…, H, W]`` in float64."""
    spectrum = scipy.fft.dctn(x.double().numpy(), axes=(-2, -1), norm="ortho")
    corner = spectrum[..., : small[0], : small[1]]
    return scipy.fft.idctn(corner, axes=(-2, -1), norm="ortho")


@pytest.mark.parametrize("size", [1, 2, 7, 41, 64, 63])
def test_the_dct_is_scipys(size: int) -> None:
    expected = scipy.fft.dct(np.eye(size), axis=0, norm="ortho")
    assert np.abs(dct_matrix(size).numpy() - expected).max() < 1e-12


@pytest.mark.parametrize(
    ("shape", "small"),
    [((2, 16, 64, 64), (32, 32)), ((1, 4, 63, 41), (32, 22)), ((1, 3, 5, 20, 34), (6, 10))],
)
def test_down_and_up_are_scipys(shape: tuple[int, ...], small: tuple[int, int]) -> None:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    corner = Corner((shape[-2], shape[-1]), small)
    down = corner.down(x)
    assert down.dtype == torch.float32 and down.shape == (*shape[:-2], *small)
    assert np.abs(down.numpy() - by_scipy(x, small)).max() < 3e-6
    # Up and down again changes nothing; up alone adds nothing above the corner.
    assert torch.allclose(corner.down(corner.up(down)), down, atol=3e-6)
    spectrum = scipy.fft.dctn(corner.up(down).numpy(), axes=(-2, -1), norm="ortho")
    assert np.abs(spectrum[..., small[0] :, :]).max() < 1e-5
    assert np.abs(spectrum[..., :, small[1] :]).max() < 1e-5


def test_a_constant_stays_and_noise_keeps_its_strength() -> None:
    corner = Corner((48, 64), (24, 32))
    assert torch.allclose(corner.low_pass(torch.full((1, 2, 48, 64), 0.7)), torch.tensor(0.7))
    noise = torch.randn(16, 16, 48, 64, generator=torch.Generator().manual_seed(1))
    assert corner.down(noise).std().item() == pytest.approx(1.0, abs=0.01)


def test_packed_latents_are_laid_out_first() -> None:
    """Four channels of one packed grid are the corners of squares of 2 x 2 values."""
    plain = torch.randn(1, 3, 32, 24, generator=torch.Generator().manual_seed(2))
    packed = torch.nn.functional.pixel_unshuffle(plain, 2)
    small = Corner((16, 12), (8, 6), packing=2).down(packed)
    expected = Corner((32, 24), (16, 12)).down(plain)
    assert small.shape == (1, 12, 8, 6)
    assert torch.allclose(torch.nn.functional.pixel_shuffle(small, 2), expected, atol=1e-6)
    assert packed_size((16, 13), 1, 2) == (8, 7)


def test_the_matrix_has_orthonormal_rows() -> None:
    matrix = corner_matrix(41, 22)
    assert torch.allclose(matrix @ matrix.T, torch.eye(22), atol=2e-6)


@pytest.mark.parametrize(
    ("side", "level", "small"),
    [(64, 1, 32), (63, 1, 32), (41, 1, 22), (90, 1, 46), (64, 3, 8), (41, 2, 12), (60, 2, 16)],
)
def test_coarse_sides_are_even_and_rounded_up(side: int, level: int, small: int) -> None:
    assert coarse_side(side, level) == small


def test_matched_sigmas_by_hand() -> None:
    assert FLOW.matched(0.8, 2.0) == pytest.approx(0.8 / 1.2)
    assert FLOW.matched(1.0, 4.0) == 1.0
    assert FLOW.matched(0.0, 2.0) == 0.0
    assert VARIANCE.matched(14.6, 2.0) == 7.3
    # Beyond the model's noise there is no fitting moment: it stays.
    assert FLOW.matched(1.3, 2.0) == 1.3
    many = torch.tensor([1.2, 1.0, 0.8, 0.0])
    assert torch.allclose(FLOW.matched(many, 2.0), torch.tensor([1.2, 1.0, 0.8 / 1.2, 0.0]))
    # Both kinds mean the same moment.
    share = VARIANCE.share(3.0)
    assert FLOW.matched(share, 2.0) == pytest.approx(VARIANCE.share(1.5))
    assert VARIANCE.sigma(share) == pytest.approx(3.0)


@pytest.mark.parametrize("kind", [FLOW, VARIANCE])
@pytest.mark.parametrize("small", [(16, 16), (10, 14)])
def test_a_small_sample_is_what_the_model_expects(kind: object, small: tuple[int, int]) -> None:
    """Scaled by σ' / σ it is the small picture with the small noise, mixed as the model mixes."""
    generator = torch.Generator().manual_seed(3)
    picture, noise = (torch.randn(1, 4, 32, 32, generator=generator) for _ in range(2))
    corner = Corner((32, 32), small)
    sigma = 0.7 if kind is FLOW else 5.0
    matched = kind.matched(sigma, corner.ratio)  # type: ignore[attr-defined]
    mixed = ((1 - sigma) if kind is FLOW else 1) * picture + sigma * noise
    got = corner.down(mixed) * (matched / sigma)
    expected = ((1 - matched) if kind is FLOW else 1) * corner.low_pass(picture)
    assert torch.allclose(got, expected + matched * corner.down(noise), atol=1e-5)


def test_when_a_frequency_begins() -> None:
    """FLUX.1 at 1024 pixels: half the side ends at 32 cycles, delta 0.01 switches at 0.853."""
    power = 203.615097 * 32**-1.915461
    assert LAW.at(32) == pytest.approx(power)
    expected = 1 / (1 + math.sqrt(0.01 / (power * (1 + power - 0.01))))
    assert LAW.begins(32, 0.01) == pytest.approx(expected) == pytest.approx(0.853, abs=5e-4)
    assert LAW.delta_of(32, LAW.begins(32, 0.01)) == pytest.approx(0.01)
    assert LAW.begins(1e6, 1.0) < 0.01 and LAW.begins(32, 5.0) == 0.0


def test_a_power_law_is_found_again() -> None:
    generator = torch.Generator().manual_seed(4)
    order = torch.arange(64) / 2
    radius = torch.hypot(order[:, None], order).clamp(min=0.5).double()
    spectrum = torch.randn(64, 8, 64, 64, generator=generator).double()
    spectrum *= (50.0 * radius**-1.6).sqrt()
    pictures = dct_matrix(64).T @ spectrum @ dct_matrix(64)
    found = fit(pictures)
    assert found.beta == pytest.approx(1.6, abs=0.05)
    assert pytest.approx(50.0, rel=0.1) == found.A
    # A part of such a picture holds as much at so many values a cycle.
    part = fit(pictures[..., 16:48, 16:48])
    assert part.at(4) == pytest.approx(found.resized(0.5).at(4), rel=0.15)
    assert part.at(4) != pytest.approx(found.at(4), rel=0.15)
    with pytest.raises(AccelerationError, match="at least 16 x 16"):
        fit(torch.zeros(1, 1, 8, 8))
    with pytest.raises(AccelerationError, match="constant"):
        fit(torch.zeros(1, 1, 32, 32))


def test_sizes_and_switches() -> None:
    found = switches((128, 128), 3, 1, LAW, None, 0.01)
    assert found.sizes == ((128, 128), (64, 64), (32, 32), (16, 16))
    assert found.shares[0] == pytest.approx(0.853, abs=5e-4)
    assert list(found.shares) == sorted(found.shares)
    assert [found.level(share) for share in (1.0, 0.98, 0.95, 0.9, 0.85, 0.1)][-1] == 0
    assert found.level(0.9) == 1 and found.level(1.0) == 3
    # A side stays at least 8 values long.
    assert len(switches((32, 20), 3, 1, LAW, None, 0.01).sizes) == 2
    assert switches((16, 16), 1, 1, LAW, None, 0.01).sizes == ((16, 16), (8, 8))
    assert switches((12, 64), 1, 1, LAW, None, 0.01).shares == ()
    # A given share is the last switch, the coarser ones lie above it.
    given = switches((128, 128), 2, 1, LAW, 0.96, 0.5)
    assert given.shares[0] == 0.96 and 0.96 < given.shares[1] < 1.0 and "0.96" in given.why


def test_the_last_steps_are_full_size() -> None:
    found = switches((64, 64), 1, 1, LAW, 0.3, 0.01)
    shares = [1.0, 0.8, 0.6, 0.5, 0.4, 0.2]
    assert choose(found, shares, True, 0) is found and choose(found, shares, True, 1) is found
    raised = choose(found, shares, True, 3)
    assert raised.shares == (0.5,) and "min_full_steps 3" in raised.why
    assert [raised.level(share) for share in shares] == [1, 1, 1, 0, 0, 0]
    # A run that ends within the noise is followed by another one, which has the last steps.
    assert choose(found, shares, False, 3) is found
    assert choose(found, shares, True, 99).shares == (1.0,)


def test_stages_count_their_own_steps() -> None:
    found = switches((64, 64), 2, 1, LAW, 0.5, 0.01)
    assert len(found.shares) == 2
    between = (found.shares[0] + found.shares[1]) / 2
    stages = found.stages([1.0, 1.0, between, 0.4, 0.3])
    assert stages[2] == Stage("16 x 16", (0, 1), False)
    assert stages[1] == Stage("32 x 32", (2,), False)
    assert stages[0] == Stage("64 x 64", (3, 4))
    assert [stages[0].local(step) for step in (0, 3, 4, 9)] == [0, 0, 1, 1]
    # Two steps at a 16th, one at a 4th, two at full size: 5 steps for 2.375.
    assert found.gain([1.0, 1.0, between, 0.4, 0.3]) == pytest.approx(5 / 2.375)
    assert found.gain([0.4, 0.3]) == found.gain([]) == 1.0
    # No step begins at half the side, but a solver may look there in the second step.
    assert found.stages([1.0, 1.0, 0.4])[1] == Stage("32 x 32", (1,), False)
    # A schedule that rises comes back to a stage.
    assert found.stages([1.0, 0.4, 1.0, 0.4])[2].steps == (0, 2)


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"mode": "quick"}, "mode is 'quick': choose one of auto, off, fine"),
        ({"levels": 4}, "levels is 4: it must be 1"),
        ({"delta": 0.0}, "delta is 0: it must lie between 0.001 and 0.5"),
        ({"switch_sigma": 1.0}, "switch_sigma is 1: it must be a share of noise below 1"),
        ({"spectrum": "flux"}, "spectrum is 'flux': choose one of auto, custom"),
        ({"spectrum_A": 0.0}, "spectrum_A is 0: it must be at least 0.001"),
        ({"spectrum_beta": 9.0}, "spectrum_beta is 9"),
        ({"min_full_steps": -1}, "min_full_steps is -1"),
    ],
)
def test_bad_settings_are_told(given: dict[str, object], words: str) -> None:
    with pytest.raises(AccelerationError, match=words):
        ProgressiveSettings(**given)  # type: ignore[arg-type]


def test_what_a_mode_asks_for() -> None:
    def goal(is_video: bool = False, **given: object) -> tuple[str, float | None, float]:
        return ProgressiveSettings(**given).goal(is_video)  # type: ignore[arg-type]

    assert goal()[:2] == ("fine", 0.96)
    assert goal(is_video=True) == ("balanced", None, 0.01)
    assert goal(mode="fast") == ("fast", None, 0.05)
    # Values of a custom mode do not change another one.
    assert goal(mode="fast", delta=0.3, switch_sigma=0.5) == ("fast", None, 0.05)
    assert goal(mode="custom", delta=0.3) == ("custom", None, 0.3)
    assert goal(mode="custom", delta=0.3, switch_sigma=0.5) == ("custom", 0.5, 0.3)


def test_the_report_in_words() -> None:
    report = ProgressiveReport(settings={"mode": "fine"}, origins={"mode": "node"}, mode="fine")
    report.refuse("its latent is sound")
    report.refuse("something else")
    assert report.sentence() == (
        "Progressive Resolution: the whole run went at full size: its latent is sound."
    )
    report = ProgressiveReport(settings={"mode": "fine"}, origins={"mode": "node"}, mode="fine")
    report.stages = [StageReport("32 x 32", False, 10, 1.0), StageReport("64 x 64", True, 10, 4.0)]
    assert report.speedup() == pytest.approx(8.0 / 5.0)
    assert report.sentence() == (
        "Progressive Resolution: of 20 evaluations 10 at 32 x 32; 1.60 times as fast as all at "
        "full size."
    )
    text = report.text()
    assert "64 x 64 (full size): 10 evaluations, 4.00 s" in text and "mode fine (node)" in text
    assert report.as_dict()["speedup"] == pytest.approx(1.6)
    assert report.as_dict()["stages"][0]["size"] == "32 x 32"

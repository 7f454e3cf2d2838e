"""Fits and thresholds with numbers that can be checked by hand."""

from __future__ import annotations

import json

import pytest

from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.families import FAMILIES, TeaCacheFit
from dit_acceleration_pack.acceleration.policies.calibration import (
    Calibration,
    calibrate,
    fit_polynomial,
    require_telling,
    skipped_share,
    threshold_for,
)


def test_a_known_polynomial_is_found_again() -> None:
    inputs = [0.02 * k for k in range(1, 16)]
    outputs = [2 * x * x + 0.5 * x + 0.1 for x in inputs]
    coefficients, r2 = fit_polynomial(inputs, outputs)
    assert r2 == pytest.approx(1.0)
    fit = TeaCacheFit("found", coefficients, 0.1)
    assert [fit.estimate(x) for x in inputs] == pytest.approx(outputs)


def test_noise_is_not_bent_after() -> None:
    """Points on a line with noise in both directions: a high degree would follow the noise."""
    inputs = [0.1 * k for k in range(1, 13)]
    outputs = [x + (0.02 if k % 2 else -0.02) for k, x in enumerate(inputs)]
    coefficients, _ = fit_polynomial(inputs, outputs)
    assert len(coefficients) <= 3


def test_too_few_points() -> None:
    with pytest.raises(AccelerationError, match="only 3 steps"):
        fit_polynomial([0.1, 0.2, 0.3], [0.1, 0.2, 0.3])


def test_skipped_share_by_hand() -> None:
    """Changes of 1 with threshold 2.5: skip, skip, compute, skip, skip, compute."""
    assert skipped_share([1.0] * 6, 2.5) == pytest.approx(4 / 6)
    assert skipped_share([1.0] * 6, 0.5) == 0.0
    assert skipped_share([0.0] * 10, 1.0, limit=4) == pytest.approx(8 / 10)


def test_threshold_for_a_share() -> None:
    assert 1.0 < threshold_for([1.0] * 20, 0.5) < 2.1


def test_estimates_are_never_negative_and_clipped_to_the_fitted_range() -> None:
    fit = TeaCacheFit("line", (1.0, -0.5), 0.1, input_range=(0.2, 0.8))
    assert fit.estimate(0.3) == 0.0
    assert fit.estimate(5.0) == pytest.approx(0.3)


def test_published_polynomials_never_sink() -> None:
    """Wan 14B at 0.01 and Kontext at 0.3 are known to go below zero."""
    for family in FAMILIES:
        for fit in family.fits:
            assert all(fit.estimate(k / 200) >= 0 for k in range(200)), fit.name


def test_round_trip() -> None:
    inputs = [0.02 * k for k in range(1, 16)]
    made = calibrate("id", "FLUX", inputs, [2 * x for x in inputs])
    made = made.with_cache_dit_diffs([0.3, 0.1, 0.2])
    again = Calibration.from_dict(json.loads(json.dumps(made.as_dict())))
    assert again == made
    assert again.cache_dit_diffs == (0.1, 0.2, 0.3)
    assert "skips about 40%" in made.text()


def test_a_fit_of_noise_is_refused() -> None:
    """Outputs that alternate whatever the input does: a line explains next to nothing."""
    inputs = [0.02 * k for k in range(1, 21)]
    outputs = [0.1 + 0.05 * (k % 2) for k in range(20)]
    with pytest.raises(AccelerationError) as error:
        calibrate("id", "FLUX", inputs, outputs)
    sentence = str(error.value)
    for part in ("explains", "% of the change", "50% at least", "tiles", "Apply Cache-DiT"):
        assert part in sentence and "\n" not in sentence, sentence


def test_outputs_that_have_nothing_in_common_are_refused_however_well_they_fit() -> None:
    inputs = [0.3 + 0.05 * k for k in range(20)]
    with pytest.raises(AccelerationError, match=r"changes by 98% .* \(70% at most\)"):
        calibrate("id", "FLUX", inputs, [0.9 + 0.01 * (x - 0.3) / 0.05 - 0.015 for x in inputs])


def test_what_is_measured_on_good_and_bad_runs_lies_on_both_sides() -> None:
    """Figures of the two demo models: the weakest good fit, and the best of noise."""
    require_telling(0.51, [0.046, 0.112, 0.153])
    require_telling(0.83, [0.04, 0.12, 0.22])
    for r2, change in ((0.48, 0.3), (0.45, 1.0), (0.94, 0.96), (0.984, 0.952)):
        with pytest.raises(AccelerationError):
            require_telling(r2, [change])


def test_a_stored_fit_of_noise_is_not_used() -> None:
    inputs = [0.02 * k for k in range(1, 16)]
    data = calibrate("id", "FLUX", inputs, [2 * x for x in inputs]).as_dict()
    with pytest.raises(AccelerationError, match=r"explains 0\.9%"):
        Calibration.from_dict(data | {"r2": 0.009})


def test_a_broken_file_gives_a_sentence() -> None:
    with pytest.raises(AccelerationError, match="calibrate again"):
        Calibration.from_dict({"identity": "x"})

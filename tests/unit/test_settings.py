"""Bad settings give one sentence that names the value and the way out."""

from __future__ import annotations

from typing import Any

import pytest

from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings, TeaCacheSettings


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"Fn_compute_blocks": 0}, ["Fn_compute_blocks is 0", "at least 1"]),
        ({"Bn_compute_blocks": -1}, ["Bn_compute_blocks is -1"]),
        ({"residual_diff_threshold": -0.1}, ["residual_diff_threshold is -0.1", "below 1"]),
        ({"residual_diff_threshold": 1.0}, ["residual_diff_threshold is 1", "below 1"]),
        ({"max_continuous_cached_steps": -2}, ["max_continuous_cached_steps is -2"]),
        ({"max_warmup_steps": -1}, ["max_warmup_steps is -1", "0 or more"]),
        ({"max_warmup_steps": 10**9}, ["max_warmup_steps is 1000000000", "at most 10000"]),
        ({"warmup_interval": 0}, ["warmup_interval is 0", "at least 1"]),
        ({"max_cached_steps": -2}, ["max_cached_steps is -2", "-1 (no limit)"]),
        ({"scm_compute_bins": "1000000000", "scm_cache_bins": "1"}, ["'1000000000'", "10000"]),
        ({"calibrator": "magic"}, ["'magic'", "taylorseer"]),
        ({"taylorseer_order": 3}, ["taylorseer_order is 3", "1 or 2"]),
        ({"corrector": "on"}, ["corrector is 'on'", "true or false"]),
        ({"scm_preset": "warp"}, ["'warp'", "ultra"]),
        ({"start_percent": 0.5, "end_percent": 0.5}, ["start must be below end"]),
        ({"start_percent": 0.7, "end_percent": 0.2}, ["0.7", "0.2"]),
        ({"scm_compute_bins": "4,2"}, ["scm_compute_bins is given without scm_cache_bins"]),
        ({"scm_cache_bins": "4,2"}, ["scm_cache_bins is given without scm_compute_bins"]),
        ({"scm_compute_bins": "4,x", "scm_cache_bins": "1"}, ["'4,x'", "whole numbers"]),
        ({"scm_compute_bins": "4,0", "scm_cache_bins": "1"}, ["at least 1"]),
        ({"scm_compute_bins": "4", "scm_cache_bins": "1,2,3"}, ["1 numbers", "3"]),
    ],
)
def test_bad_settings(settings: dict[str, Any], parts: list[str]) -> None:
    with pytest.raises(AccelerationError) as error:
        CacheDiTSettings(**settings)
    sentence = str(error.value)
    assert all(part in sentence for part in parts), sentence
    assert "\n" not in sentence


@pytest.mark.parametrize("text", ["1,x", "nan,1", "inf", "1,,2"])
def test_custom_coefficients_are_finite_numbers(text: str) -> None:
    with pytest.raises(AccelerationError, match="custom_coefficients is"):
        TeaCacheSettings(custom_coefficients=text)


def test_a_threshold_without_end_is_refused() -> None:
    with pytest.raises(AccelerationError, match="rel_l1_thresh is inf"):
        TeaCacheSettings(rel_l1_thresh=float("inf"))

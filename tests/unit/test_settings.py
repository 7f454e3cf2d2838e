"""Bad settings give one sentence that names the value and the way out."""

from __future__ import annotations

from typing import Any

import pytest

from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.settings import CacheDiTSettings


@pytest.mark.parametrize(
    ("settings", "parts"),
    [
        ({"Fn_compute_blocks": 0}, ["Fn_compute_blocks is 0", "at least 1"]),
        ({"Bn_compute_blocks": -1}, ["Bn_compute_blocks is -1"]),
        ({"residual_diff_threshold": -0.1}, ["residual_diff_threshold is -0.1", "below 1"]),
        ({"residual_diff_threshold": 1.0}, ["residual_diff_threshold is 1", "below 1"]),
        ({"max_continuous_cached_steps": -2}, ["max_continuous_cached_steps is -2"]),
        ({"calibrator": "magic"}, ["'magic'", "taylorseer"]),
        ({"taylorseer_order": 3}, ["taylorseer_order is 3", "1 or 2"]),
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


def test_cache_config_of_the_library() -> None:
    settings = CacheDiTSettings.from_cache_config(
        {
            "max_warmup_steps": 8,
            "warmup_interval": 2,
            "max_cached_steps": -1,
            "max_continuous_cached_steps": 2,
            "Fn_compute_blocks": 1,
            "Bn_compute_blocks": 0,
            "residual_diff_threshold": 0.12,
            "enable_taylorseer": True,
            "taylorseer_order": 1,
        }
    )
    assert settings.calibrator == "taylorseer" and settings.warmup_interval == 2


def test_taylorseer_together_with_dmd() -> None:
    with pytest.raises(
        AccelerationError, match="enable_taylorseer is true and calibrator is 'dmd'"
    ):
        CacheDiTSettings.from_cache_config({"enable_taylorseer": True, "calibrator": "dmd"})


def test_unknown_key_of_a_cache_config() -> None:
    with pytest.raises(AccelerationError, match="'residual_threshold'"):
        CacheDiTSettings.from_cache_config({"residual_threshold": 0.1})

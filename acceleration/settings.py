"""Validated settings of the caching techniques, under cache-dit's own field names."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from .errors import AccelerationError

CALIBRATORS = ("none", "taylorseer", "foca", "dmd", "trajectory")
SCM_PRESETS = ("none", "slow", "medium", "fast", "ultra")
SCM_POLICIES = ("dynamic", "static")
RESIDUAL_DEVICES = ("auto", "gpu", "cpu")


def parse_bins(text: str, name: str) -> tuple[int, ...]:
    """Read a list of step counts such as ``"6, 2, 2, 1"``; an empty text gives ``()``."""
    if not text.strip():
        return ()
    try:
        bins = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise AccelerationError(
            f"{name} is {text!r}: give whole numbers separated by commas, such as 6,2,2,1."
        ) from None
    if min(bins) < 1:
        raise AccelerationError(f"{name} is {text!r}: every number of steps must be at least 1.")
    return bins


def _require(ok: bool, sentence: str) -> None:
    if not ok:
        raise AccelerationError(sentence)


def _require_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    _require(value in allowed, f"{name} is {value!r}: choose one of {', '.join(allowed)}.")


def _check_shared(settings: CacheDiTSettings | TeaCacheSettings) -> None:
    """Check the fields that every caching technique has."""
    _require(
        settings.max_continuous_cached_steps >= -1,
        f"max_continuous_cached_steps is {settings.max_continuous_cached_steps}: it must be -1 "
        "(no limit), 0 (never skip) or a number of steps.",
    )
    _require_choice("calibrator", settings.calibrator, CALIBRATORS)
    _require(
        settings.taylorseer_order in (1, 2),
        f"taylorseer_order is {settings.taylorseer_order}: choose 1 or 2.",
    )
    _require_choice("residual_device", settings.residual_device, RESIDUAL_DEVICES)
    start, end = settings.start_percent, settings.end_percent
    _require(
        0.0 <= start < end <= 1.0,
        f"start_percent is {start:g} and end_percent {end:g}: start must be below end, and both "
        "between 0 and 1.",
    )


@dataclass(frozen=True)
class TeaCacheSettings:
    """What Apply TeaCache was asked to do.

    ``rel_l1_thresh`` 0 takes the threshold recommended for the detected model. ``coefficients`` is
    ``"auto"``, ``"raw"``, ``"custom"`` or the name of a published fit; ``custom_coefficients`` is a
    list of numbers, highest power first.
    """

    rel_l1_thresh: float = 0.0
    coefficients: str = "auto"
    custom_coefficients: str = ""
    max_continuous_cached_steps: int = 4
    calibrator: str = "none"
    taylorseer_order: int = 1
    start_percent: float = 0.0
    end_percent: float = 1.0
    residual_device: str = "auto"

    def __post_init__(self) -> None:
        _require(
            self.rel_l1_thresh >= 0,
            f"rel_l1_thresh is {self.rel_l1_thresh:g}: it must be 0 (recommended for this model) "
            "or more; higher skips more.",
        )
        _check_shared(self)
        _require(
            self.coefficients != "custom" or bool(self.polynomial),
            "coefficients is 'custom' and custom_coefficients is empty: give numbers separated by "
            "commas, highest power first, such as 498.65,-283.78,55.86,-3.82,0.264.",
        )

    @property
    def polynomial(self) -> tuple[float, ...]:
        """The custom coefficients, highest power first; empty if none are given."""
        text = self.custom_coefficients.strip()
        try:
            return tuple(float(part) for part in text.split(",")) if text else ()
        except ValueError:
            raise AccelerationError(
                f"custom_coefficients is {text!r}: give numbers separated by commas, highest power "
                "first."
            ) from None


@dataclass(frozen=True)
class CacheDiTSettings:
    """What Apply Cache-DiT was asked to do.

    The defaults are SGLang-Diffusion's (Fn 1, Bn 0, W 4, R 0.24, MC 3), the names are those of
    cache-dit's ``DBCacheConfig`` and ``TaylorSeerCalibratorConfig``.

    Raises
    ------
    AccelerationError
        With one sentence that names the field, its value, the limit and the way out.
    """

    Fn_compute_blocks: int = 1
    Bn_compute_blocks: int = 0
    max_warmup_steps: int = 4
    residual_diff_threshold: float = 0.24
    max_continuous_cached_steps: int = 3
    calibrator: str = "none"
    taylorseer_order: int = 1
    scm_preset: str = "none"
    scm_policy: str = "dynamic"
    scm_compute_bins: str = ""
    scm_cache_bins: str = ""
    start_percent: float = 0.0
    end_percent: float = 1.0
    residual_device: str = "auto"
    warmup_interval: int = 1
    max_cached_steps: int = -1

    def __post_init__(self) -> None:
        _require(
            self.Fn_compute_blocks >= 1,
            f"Fn_compute_blocks is {self.Fn_compute_blocks}: at least 1 block must always run, "
            "because the change of its output is what decides.",
        )
        _require(
            self.Bn_compute_blocks >= 0,
            f"Bn_compute_blocks is {self.Bn_compute_blocks}: it must be 0 or more.",
        )
        _require(
            self.max_warmup_steps >= 0,
            f"max_warmup_steps is {self.max_warmup_steps}: it must be 0 or more.",
        )
        _require(
            self.warmup_interval >= 1,
            f"warmup_interval is {self.warmup_interval}: it must be at least 1.",
        )
        _require(
            0.0 <= self.residual_diff_threshold < 1.0,
            f"residual_diff_threshold is {self.residual_diff_threshold:g}: it must be at least 0 "
            "(never skip) and below 1; 0.08 is careful, 0.24 the default, 0.4 aggressive.",
        )
        _require_choice("scm_preset", self.scm_preset, SCM_PRESETS)
        _require_choice("scm_policy", self.scm_policy, SCM_POLICIES)
        _check_shared(self)
        self._check_bins()

    def _check_bins(self) -> None:
        compute, cache = self.compute_bins, self.cache_bins
        _require(
            bool(compute) == bool(cache),
            f"scm_{'compute' if compute else 'cache'}_bins is given without "
            f"scm_{'cache' if compute else 'compute'}_bins: fill in both, or empty both to use "
            "scm_preset.",
        )
        _require(
            len(compute) - len(cache) in (0, 1),
            f"scm_compute_bins has {len(compute)} numbers and scm_cache_bins {len(cache)}: they "
            "alternate, so give as many cache bins as compute bins or one less.",
        )

    @property
    def compute_bins(self) -> tuple[int, ...]:
        """Lengths of the runs of computed steps, in order."""
        return parse_bins(self.scm_compute_bins, "scm_compute_bins")

    @property
    def cache_bins(self) -> tuple[int, ...]:
        """Lengths of the runs of cached steps between them, in order."""
        return parse_bins(self.scm_cache_bins, "scm_cache_bins")

    @classmethod
    def from_cache_config(cls, config: Mapping[str, Any]) -> CacheDiTSettings:
        """Build settings from a ``cache_config`` in cache-dit's field names.

        ``enable_taylorseer`` is the library's switch for the calibrator; it may not be combined
        with another calibrator.
        """
        values = dict(config)
        if values.pop("enable_taylorseer", False):
            other = values.get("calibrator", "taylorseer")
            _require(
                other in ("taylorseer", "none"),
                f"enable_taylorseer is true and calibrator is {other!r}: a residual has one "
                "forecast, so choose one of them.",
            )
            values["calibrator"] = "taylorseer"
        known = {field.name for field in fields(cls)}
        for key in values:
            _require(
                key in known,
                f"cache_config has the unknown key {key!r}: allowed are "
                f"{', '.join(sorted(known | {'enable_taylorseer'}))}.",
            )
        return cls(**values)

"""Validated settings of the caching techniques, under cache-dit's own field names."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import AccelerationError, shown

CALIBRATORS = ("none", "taylorseer", "trajectory", "blend")
SCM_PRESETS = ("none", "slow", "medium", "fast", "ultra")
SCM_POLICIES = ("dynamic", "static")
RESIDUAL_DEVICES = ("auto", "gpu", "cpu", "gpu_bf16", "gpu_fp8", "cpu_bf16", "cpu_fp8")

MAX_STEPS = 10_000
"""As many steps as the host's samplers take; keeps a mistyped number from filling the memory."""


def parse_bins(text: str, name: str) -> tuple[int, ...]:
    """Read a list of step counts such as ``"6, 2, 2, 1"``; an empty text gives ``()``."""
    if not text.strip():
        return ()
    try:
        bins = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise AccelerationError(
            f"{name} is {shown(text)}: give whole numbers separated by commas, such as 6,2,2,1."
        ) from None
    if min(bins) < 1 or sum(bins) > MAX_STEPS:
        raise AccelerationError(
            f"{name} is {shown(text)}: every number of steps must be at least 1, and their sum at "
            f"most {MAX_STEPS}."
        )
    return bins


def _require(ok: bool, sentence: str) -> None:
    if not ok:
        raise AccelerationError(sentence)


def _require_choice(name: str, value: str, allowed: tuple[str, ...]) -> None:
    _require(value in allowed, f"{name} is {shown(value)}: choose one of {', '.join(allowed)}.")


def _require_steps(name: str, value: int, lowest: int) -> None:
    meaning = {-1: "-1 (no limit), 0 (never skip) or a number of steps", 0: "0 or more"}
    _require(
        lowest <= value <= MAX_STEPS,
        f"{name} is {value}: it must be {meaning.get(lowest, 'at least 1')}, and at most "
        f"{MAX_STEPS}.",
    )


def _check_shared(settings: CacheDiTSettings | TeaCacheSettings) -> None:
    """Check the fields that every caching technique has."""
    _require_steps("max_continuous_cached_steps", settings.max_continuous_cached_steps, -1)
    _require_choice("calibrator", settings.calibrator, CALIBRATORS)
    _require(
        settings.taylorseer_order in (1, 2),
        f"taylorseer_order is {settings.taylorseer_order}: choose 1 or 2.",
    )
    _require_choice("residual_device", settings.residual_device, RESIDUAL_DEVICES)
    _require(
        isinstance(settings.corrector, bool),
        f"corrector is {shown(settings.corrector)}: it must be true or false.",
    )
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
    corrector: bool = False

    def __post_init__(self) -> None:
        _require(
            0 <= self.rel_l1_thresh < math.inf,
            f"rel_l1_thresh is {self.rel_l1_thresh:g}: it must be 0 (recommended for this model) "
            "or more; higher skips more.",
        )
        _check_shared(self)
        _require(
            bool(self.polynomial) or self.coefficients != "custom",
            "coefficients is 'custom' and custom_coefficients is empty: give numbers separated by "
            "commas, highest power first, such as 498.65,-283.78,55.86,-3.82,0.264.",
        )

    @property
    def polynomial(self) -> tuple[float, ...]:
        """The custom coefficients, highest power first; empty if none are given."""
        text = self.custom_coefficients.strip()
        try:
            numbers = tuple(float(part) for part in text.split(",")) if text else ()
        except ValueError:
            numbers = (math.nan,)
        _require(
            all(map(math.isfinite, numbers)),
            f"custom_coefficients is {shown(text)}: give numbers separated by commas, highest "
            "power first.",
        )
        return numbers


@dataclass(frozen=True)
class CacheDiTSettings:
    """What Apply Cache-DiT was asked to do.

    The defaults are SGLang-Diffusion's (Fn 1, Bn 0, W 4, R 0.24, MC 3), the names are those of
    cache-dit's ``DBCacheConfig`` and ``TaylorSeerCalibratorConfig``. ``corrector`` is ours
    (``forecasts.corrector``), as are ``calibrator``'s further choices, the percents and
    ``residual_device``.

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
    corrector: bool = False

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
        _require_steps("max_warmup_steps", self.max_warmup_steps, 0)
        _require_steps("warmup_interval", self.warmup_interval, 1)
        _require_steps("max_cached_steps", self.max_cached_steps, -1)
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

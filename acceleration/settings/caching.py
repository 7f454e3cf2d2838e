"""Validated settings of the caching techniques, under cache-dit's own field names."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import AccelerationError, shown
from ..families import published_fits
from ..setting import Checked, changed, check_window, in_order, require, setting

CALIBRATORS = ("none", "taylorseer", "trajectory", "blend")

MAX_STEPS = 10_000
"""As many steps as the host's samplers take; keeps a mistyped number from filling the memory."""

VARIANTS = tuple(name for name in published_fits() if name.endswith("_ret_mode"))
"""Second fits of the same models. The node's list would name every Wan twice; a workflow, a file or
the API may still ask for them."""

_AT_MOST = f"and at most {MAX_STEPS}"
_NO_LIMIT = f"it must be -1 (no limit), 0 (never skip) or a number of steps, {_AT_MOST}"


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
    require(
        min(bins) >= 1 and sum(bins) <= MAX_STEPS,
        f"{name} is {shown(text)}: every number of steps must be at least 1, and their sum at "
        f"most {MAX_STEPS}.",
    )
    return bins


@dataclass(frozen=True, kw_only=True)
class CachingSettings(Checked):
    """What every caching technique is asked.

    ``corrector`` is ours (``forecasts.corrector``), as are the calibrators beside ``none`` and
    ``taylorseer``, the percents and ``residual_device``.
    """

    max_continuous_cached_steps: int = setting(
        3,
        "How many steps in a row may be skipped; -1 is no limit. Lower keeps more detail.",
        lowest=-1,
        highest=1000,
        most=MAX_STEPS,
        limit=_NO_LIMIT,
    )
    calibrator: str = setting(
        "none",
        "What replaces skipped blocks. none: the last result as it is. taylorseer: extrapolated in "
        "time, mostly nearer to the full run, needs more memory. trajectory: follows the first "
        "blocks' progress, much like it. blend: between the two by what they last got wrong; needs "
        "the most memory.",
        choices=CALIBRATORS,
    )
    taylorseer_order: int = setting(
        1,
        "How many past differences taylorseer and trajectory use (blend uses two). 2 needs more "
        "memory and is better only when little is skipped.",
        lowest=1,
        highest=2,
        limit="choose 1 or 2",
        advanced=True,
    )
    start_percent: float = setting(
        0.0,
        "Skipping begins at this part of the noise range. Raise it to keep the composition exact.",
        lowest=0.0,
        highest=1.0,
        step=0.01,
        advanced=True,
    )
    end_percent: float = setting(
        1.0,
        "Skipping ends at this part of the noise range. Lower it to keep fine detail exact.",
        lowest=0.0,
        highest=1.0,
        step=0.01,
        advanced=True,
    )
    residual_device: str = setting(
        "auto",
        "Where remembered tensors live. auto: on the GPU while there is room, else in CPU memory, "
        "else compact. cpu saves VRAM and costs a little time; bf16 and fp8 take half or a quarter "
        "of float32 and cost some faithfulness. Leave at auto.",
        choices=("auto", "gpu", "cpu", "gpu_bf16", "gpu_fp8", "cpu_bf16", "cpu_fp8"),
        advanced=True,
    )
    corrector: bool = setting(
        False,
        "Gives back, in the next computed step, what skipped steps got wrong: nearer to the full "
        "picture at the same speed, for the memory of a few latents. Gains most with calibrator "
        "none or taylorseer; with blend, compare. Leave off for published figures. Samplers it "
        "does not know run as without it; the report says so.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.start_percent, self.end_percent)


@in_order("rel_l1_thresh", "coefficients", "custom_coefficients")
@dataclass(frozen=True, kw_only=True)
class TeaCacheSettings(CachingSettings):
    """What Apply TeaCache was asked to do."""

    rel_l1_thresh: float = setting(
        0.0,
        "How much estimated change may add up before a step is computed. Higher is faster and less "
        "faithful. 0 takes what is recommended for the detected model.",
        lowest=0.0,
        highest=10.0,
        most=math.inf,
        step=0.01,
        limit="it must be 0 (recommended for this model) or more; higher skips more",
    )
    coefficients: str = setting(
        "auto",
        "How input change is turned into output change. auto: calibrated for this checkpoint, else "
        "published for this model, else raw. Choose by hand only for variants that look alike, "
        "such as flux-kontext or Wan 720p.",
        choices=("auto", "raw", "custom", *(n for n in published_fits() if n not in VARIANTS)),
        former=VARIANTS,
    )
    custom_coefficients: str = setting(
        "",
        "For coefficients = custom: numbers separated by commas, highest power first.",
        advanced=True,
    )
    max_continuous_cached_steps: int = changed(CachingSettings, "max_continuous_cached_steps", 4)
    calibrator: str = changed(
        CachingSettings,
        "calibrator",
        help="What replaces skipped blocks. none: the last result as it is, as published. The "
        "others forecast it and need more memory.",
        advanced=True,
    )
    taylorseer_order: int = changed(
        CachingSettings,
        "taylorseer_order",
        help="How many past differences taylorseer and trajectory use.",
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
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
        require(
            all(map(math.isfinite, numbers)),
            f"custom_coefficients is {shown(text)}: give numbers separated by commas, highest "
            "power first.",
        )
        return numbers


@in_order(
    *("Fn_compute_blocks", "Bn_compute_blocks", "max_warmup_steps", "residual_diff_threshold"),
    *("max_continuous_cached_steps", "calibrator", "taylorseer_order", "scm_preset", "scm_policy"),
    *("scm_compute_bins", "scm_cache_bins", "start_percent", "end_percent", "residual_device"),
    *("warmup_interval", "max_cached_steps", "corrector"),
)
@dataclass(frozen=True, kw_only=True)
class CacheDiTSettings(CachingSettings):
    """What Apply Cache-DiT was asked to do.

    The defaults are SGLang-Diffusion's (Fn 1, Bn 0, W 4, R 0.24, MC 3), the names are those of
    cache-dit's ``DBCacheConfig`` and ``TaylorSeerCalibratorConfig``.
    """

    Fn_compute_blocks: int = setting(
        1,
        "How many first blocks always run; their change decides. More is slower and decides "
        "better. Leave at 1 unless pictures suffer.",
        lowest=1,
        highest=128,
        most=math.inf,
        limit="at least 1 block must always run, because the change of its output is what decides",
        advanced=True,
    )
    Bn_compute_blocks: int = setting(
        0,
        "How many last blocks always run after the skipped ones. More is slower and smooths the "
        "result. Leave at 0 for most models.",
        lowest=0,
        highest=128,
        most=math.inf,
        limit="it must be 0 or more",
        advanced=True,
    )
    max_warmup_steps: int = setting(
        4,
        "Steps at the start that are always computed; they lay out the picture. Fewer is faster, "
        "more keeps the composition. With 8 steps or less, try 2.",
        lowest=0,
        highest=1000,
        most=MAX_STEPS,
        limit=f"it must be 0 or more, {_AT_MOST}",
    )
    residual_diff_threshold: float = setting(
        0.24,
        "How much the first blocks may change (relative L1) for a step to be skipped. Higher is "
        "faster and less faithful: 0.08 careful, 0.24 default, 0.4 aggressive, 0 never skips.",
        lowest=0.0,
        highest=0.99,
        most=1.0,
        below=True,
        step=0.01,
        limit="it must be at least 0 (never skip) and below 1; 0.08 is careful, 0.24 the default, "
        "0.4 aggressive",
    )
    scm_preset: str = setting(
        "none",
        "A fixed plan of steps that must be computed, fitted to the step count (8 or more): slow "
        "computes 64 %, medium 54 %, fast 39 %, ultra 29 %.",
        choices=("none", "slow", "medium", "fast", "ultra"),
    )
    scm_policy: str = setting(
        "dynamic",
        "What the plan's free steps do. dynamic: skip only below the threshold. static: always "
        "skip, the fastest and exactly predictable.",
        choices=("dynamic", "static"),
        advanced=True,
    )
    scm_compute_bins: str = setting(
        "",
        "Own plan: lengths of the computed runs, such as 6,2,2,1. Together with scm_cache_bins "
        "they must sum to the steps. Empty uses scm_preset.",
        advanced=True,
    )
    scm_cache_bins: str = setting(
        "", "Own plan: lengths of the cached runs in between, such as 3,4,4.", advanced=True
    )
    warmup_interval: int = setting(
        1,
        "Which steps of the warm-up are computed: with 2 every second one. The others are decided "
        "by their change.",
        lowest=1,
        highest=MAX_STEPS,
        limit=f"it must be at least 1, {_AT_MOST}",
        on_node=False,
    )
    max_cached_steps: int = setting(
        -1,
        "How many steps may be skipped in the whole run, -1 is no limit. A static step plan "
        "ignores it.",
        lowest=-1,
        highest=MAX_STEPS,
        limit=_NO_LIMIT,
        on_node=False,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        compute, cache = self.compute_bins, self.cache_bins
        require(
            bool(compute) == bool(cache),
            f"scm_{'compute' if compute else 'cache'}_bins is given without "
            f"scm_{'cache' if compute else 'compute'}_bins: fill in both, or empty both to use "
            "scm_preset.",
        )
        require(
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

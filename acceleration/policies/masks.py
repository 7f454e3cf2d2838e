"""Step computation masks (SCM): which steps of the schedule must be computed.

A mask is a list of 0 and 1, one a step: 1 computes, 0 may use the cache. The presets are those of
cache-dit; where the library's mask for a step count is unsound (its 16-27 step masks are cut from
the end, some counts raise), the 28-step pattern is rescaled instead.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import AccelerationError
from ..settings.caching import CacheDiTSettings

REFERENCE_STEPS = 28
MIN_STEPS = 8
"""Below this SCM is switched off, as SGLang-Diffusion does: there is too little to plan."""

# Computed | cached bins at 28 steps, cache-dit 1.5.3 (caching/cache_interface.py, steps_mask).
PRESET_BINS: dict[str, tuple[tuple[int, ...], tuple[int, ...]]] = {
    "slow": ((8, 3, 3, 2, 1, 1), (1, 2, 2, 2, 3)),
    "medium": ((6, 2, 2, 2, 2, 1), (1, 3, 3, 3, 3)),
    "fast": ((6, 1, 1, 1, 1, 1), (1, 3, 4, 5, 4)),
    "ultra": ((4, 1, 1, 1, 1), (2, 5, 6, 7)),
}


def mask_from_bins(compute_bins: tuple[int, ...], cache_bins: tuple[int, ...]) -> list[int]:
    """Alternate runs of computed and cached steps, beginning with computed ones."""
    mask: list[int] = []
    for i, computed in enumerate(compute_bins):
        mask += [1] * computed
        if i < len(cache_bins):
            mask += [0] * cache_bins[i]
    return mask


def longest_cached_run(mask: list[int]) -> int:
    """Length of the longest run of 0 in a mask."""
    return max((len(run) for run in "".join(map(str, mask)).split("1")), default=0)


def is_sound(mask: list[int], preset: str, steps: int) -> bool:
    """Whether a mask keeps the character of its preset at 28 steps.

    Sound means: right length; first and last step computed; no cached run longer than the
    preset's own (scaled up for longer schedules); share of computed steps within 5 points of the
    preset's, or within half a step where one step is more than 10 points.
    """
    if len(mask) != steps or not mask[0] or not mask[-1]:
        return False
    share = sum(mask_from_bins(*PRESET_BINS[preset])) / REFERENCE_STEPS
    tolerance = max(0.05, 0.5 / steps) + 1e-9
    within_share = abs(sum(mask) / steps - share) <= tolerance
    return within_share and longest_cached_run(mask) <= _run_limit(preset, steps)


def _run_limit(preset: str, steps: int) -> int:
    """Longest cached run allowed: the preset's own at 28 steps, in proportion on longer ones."""
    run = longest_cached_run(mask_from_bins(*PRESET_BINS[preset]))
    return max(run, -(-run * steps // REFERENCE_STEPS))


def rescaled_mask(preset: str, steps: int) -> list[int]:
    """The 28-step pattern of a preset stretched or shrunk to ``steps`` ≥ 2.

    The k-th computed step is placed where the same quantile of the computed steps lies in the
    28-step pattern, so that dense beginnings stay dense.
    """
    reference = [i for i, on in enumerate(mask_from_bins(*PRESET_BINS[preset])) if on]
    count = min(steps, max(2, round(len(reference) * steps / REFERENCE_STEPS)))
    stretch = (steps - 1) / (REFERENCE_STEPS - 1)
    placed: list[int] = []
    for k in range(count):
        where = k * (len(reference) - 1) / (count - 1)
        below = min(int(where), len(reference) - 2)
        position = reference[below] + (where - below) * (reference[below + 1] - reference[below])
        earliest = placed[-1] + 1 if placed else 0
        latest = steps - count + k
        placed.append(min(max(round(position * stretch), earliest), latest))
    for k in reversed(range(count - 1)):
        # Rounding can stretch a run by one; pull its beginning back up.
        placed[k] = max(placed[k], placed[k + 1] - _run_limit(preset, steps) - 1)
    chosen = set(placed)
    return [int(step in chosen) for step in range(steps)]


def library_mask(preset: str, steps: int) -> list[int] | None:
    """cache-dit's own mask, or None where the library refuses the step count."""
    from ..cache_dit.library import steps_mask

    return steps_mask(preset, steps)


def preset_mask(preset: str, steps: int) -> list[int]:
    """Mask of a preset for any number of steps ≥ 1; all ones below ``MIN_STEPS``."""
    if steps < MIN_STEPS:
        return [1] * steps
    mask = library_mask(preset, steps)
    if mask is not None and is_sound(mask, preset, steps):
        return mask
    return rescaled_mask(preset, steps)


def mask_for(
    settings: CacheDiTSettings, steps: int, own: Sequence[int] | None = None
) -> list[int] | None:
    """The mask that settings ask for on a schedule of ``steps`` steps, or None.

    Where only some steps are meant, ``own``, a preset is that of a run of so many, and bins are
    those of these steps.

    Raises
    ------
    AccelerationError
        When custom bins do not sum to the number of steps.
    """
    if settings.compute_bins:
        mask = mask_from_bins(settings.compute_bins, settings.cache_bins)
        if len(mask) != steps:
            raise AccelerationError(
                f"scm_compute_bins and scm_cache_bins sum to {len(mask)} steps, but this run has "
                f"{steps}: change the bins so that they sum to {steps}, or use scm_preset, which "
                "fits any number of steps."
            )
        return mask if own is None else [mask[step] for step in own]
    count = steps if own is None else len(own)
    if settings.scm_preset == "none" or count < MIN_STEPS:
        return None
    return preset_mask(settings.scm_preset, count)

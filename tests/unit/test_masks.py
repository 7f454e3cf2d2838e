"""Step computation masks: every count from 1 to 100, every preset."""

from __future__ import annotations

import pytest

from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.policies import masks
from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings

PRESETS = ["slow", "medium", "fast", "ultra"]


def longest_run_of_zeros(mask: list[int]) -> int:
    longest = current = 0
    for value in mask:
        current = 0 if value else current + 1
        longest = max(longest, current)
    return longest


@pytest.mark.parametrize("preset", PRESETS)
@pytest.mark.parametrize("steps", range(1, 101))
def test_every_step_count(preset: str, steps: int) -> None:
    mask = masks.preset_mask(preset, steps)
    reference = masks.mask_from_bins(*masks.PRESET_BINS[preset])
    assert len(mask) == steps and set(mask) <= {0, 1}
    assert mask[0] == 1 and mask[-1] == 1
    if steps < masks.MIN_STEPS:
        assert mask == [1] * steps
        return
    run = longest_run_of_zeros(reference)
    assert longest_run_of_zeros(mask) <= max(run, -(-run * steps // 28))
    # One step of eight or nine is more than ten points, so there half a step is the best possible.
    tolerance = max(0.05, 0.5 / steps)
    assert abs(sum(mask) / steps - sum(reference) / 28) <= tolerance + 1e-9


@pytest.mark.parametrize("preset", PRESETS)
def test_28_steps_are_the_librarys(preset: str) -> None:
    assert masks.preset_mask(preset, 28) == masks.library_mask(preset, 28)


def test_computed_steps_at_28() -> None:
    assert [sum(masks.preset_mask(p, 28)) for p in PRESETS] == [18, 15, 11, 8]


def test_the_librarys_unsound_masks_are_not_used() -> None:
    library = masks.library_mask("fast", 20)
    assert library is not None and longest_run_of_zeros(library) == 11
    assert longest_run_of_zeros(masks.preset_mask("fast", 20)) <= 5


def test_a_mask_keeps_its_dense_beginning() -> None:
    for preset in PRESETS:
        mask = masks.preset_mask(preset, 20)
        assert sum(mask[:10]) > sum(mask[10:])


def test_custom_bins() -> None:
    settings = CacheDiTSettings(scm_compute_bins="2,1,1", scm_cache_bins="2, 3")
    assert masks.mask_for(settings, 9) == [1, 1, 0, 0, 1, 0, 0, 0, 1]


def test_custom_bins_of_another_length_name_both_numbers() -> None:
    settings = CacheDiTSettings(scm_compute_bins="2,1", scm_cache_bins="2")
    with pytest.raises(AccelerationError, match="sum to 5 steps, but this run has 20"):
        masks.mask_for(settings, 20)


def test_presets_are_off_below_eight_steps() -> None:
    assert masks.mask_for(CacheDiTSettings(scm_preset="fast"), 7) is None
    assert masks.mask_for(CacheDiTSettings(scm_preset="fast"), 8) is not None
    assert masks.mask_for(CacheDiTSettings(), 28) is None


def test_a_mask_for_some_steps_of_a_run() -> None:
    """A preset is made for the steps that are meant; bins name the steps of the whole run."""
    preset = CacheDiTSettings(scm_preset="fast")
    assert masks.mask_for(preset, 28, range(8, 28)) == masks.preset_mask("fast", 20)
    assert masks.mask_for(preset, 28, range(6)) is None
    bins = CacheDiTSettings(scm_compute_bins="2,1,1", scm_cache_bins="2,2")
    assert masks.mask_for(bins, 8, range(3, 8)) == [0, 1, 0, 0, 1]
    with pytest.raises(AccelerationError, match="sum to 8 steps"):
        masks.mask_for(bins, 9, range(3, 8))

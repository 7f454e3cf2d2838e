"""``warmup_interval`` and ``max_cached_steps`` act: step lists computed by hand."""

from __future__ import annotations

import pytest

from dit_acceleration_pack.acceleration.cache_dit.decisions import DecisionEngine
from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings


def cached_steps(steps: int, mask: list[int] | None = None, **settings: int | str) -> list[int]:
    """Steps served from the cache where no step differs from the last."""
    engine = DecisionEngine(CacheDiTSettings(**settings), mask)  # type: ignore[arg-type]
    found = []
    for step in range(steps):
        if engine.decide(step, 0.0 if step else None)[0]:
            engine.reused(step)
            found.append(step)
        else:
            engine.computed(step)
    assert engine.cached_steps() == len(found)
    return found


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        # Warm-up 0-3, then two in a row: 4 5 . 7 8 . 10 11
        ({"max_warmup_steps": 4, "max_continuous_cached_steps": 2}, [4, 5, 7, 8, 10, 11]),
        # Only 0 2 4 6 warm up; 7 and 8 are two in a row, 9 is computed.
        (
            {"max_warmup_steps": 8, "warmup_interval": 2, "max_continuous_cached_steps": 2},
            [1, 3, 5, 7, 8, 10, 11],
        ),
        # Only 0 3 6 warm up, and two in a row between them are allowed.
        (
            {"max_warmup_steps": 8, "warmup_interval": 3, "max_continuous_cached_steps": 2},
            [1, 2, 4, 5, 7, 8, 10, 11],
        ),
        # The same, one in a row.
        (
            {"max_warmup_steps": 8, "warmup_interval": 3, "max_continuous_cached_steps": 1},
            [1, 4, 7, 9, 11],
        ),
        # An interval as long as the warm-up leaves only the first step.
        (
            {"max_warmup_steps": 4, "warmup_interval": 4, "max_continuous_cached_steps": -1},
            list(range(1, 12)),
        ),
        # Three in all.
        (
            {"max_warmup_steps": 2, "max_cached_steps": 3, "max_continuous_cached_steps": -1},
            [2, 3, 4],
        ),
        # Three in all, one in a row: 2 . 4 . 6
        (
            {"max_warmup_steps": 2, "max_cached_steps": 3, "max_continuous_cached_steps": 1},
            [2, 4, 6],
        ),
        ({"max_warmup_steps": 2, "max_cached_steps": 0}, []),
        # Steps of the warm-up that are served count as well: 1 3 and then 4.
        (
            {
                "max_warmup_steps": 4,
                "warmup_interval": 2,
                "max_cached_steps": 3,
                "max_continuous_cached_steps": -1,
            },
            [1, 3, 4],
        ),
    ],
)
def test_steps_served_of_twelve(settings: dict[str, int], expected: list[int]) -> None:
    assert cached_steps(12, **settings) == expected


def test_a_plan_shortens_the_warm_up_and_its_steps_stay_computed() -> None:
    """The plan begins with two computed steps: warm-up 0 (interval 2), and 1 by the plan."""
    mask = [1, 1, 0, 0, 1, 0, 0, 1]
    settings = {"max_warmup_steps": 6, "warmup_interval": 2}
    assert cached_steps(8, mask, **settings) == [2, 3, 5, 6]
    assert cached_steps(8, mask, **settings, max_cached_steps=3) == [2, 3, 5]
    # A static plan decides alone.
    static = cached_steps(8, mask, **settings, max_cached_steps=3, scm_policy="static")
    assert static == [2, 3, 5, 6]

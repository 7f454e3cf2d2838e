"""The command "Compare presets" in the real front end, both node renderers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import looks
import pytest

pytestmark = [pytest.mark.server, pytest.mark.browser]

STEPS = 12


@pytest.fixture(scope="module", params=looks.MOSTLY_CANVAS)
def seen(request: pytest.FixtureRequest, on_the_demo: Callable[..., Any]) -> Any:
    """What a person sees who compares, chooses a preset, closes, and cancels a second try."""
    seed = 900 + request.param[0]
    return on_the_demo("compare_presets", request.param, steps=STEPS, seed=seed)


def test_it_shows_a_row_for_each_preset(seen: Any) -> None:
    assert "Run 3 of 6: quality" in seen["running"]
    head, *rows = seen["rows"]
    assert head == ["preset", "seconds", "speed", "computed", "PSNR", "SSIM"]
    assert [row[0] for row in rows] == ["off", "quality", "balanced", "fast", "ultra"]
    assert rows[0][2:] == ["1.00×", "all", "–", "–"]
    computed = [int(row[3].split()[0]) for row in rows[1:]]
    assert computed == sorted(computed, reverse=True) and computed[0] < STEPS
    assert all(row[4].endswith("dB") for row in rows[1:])


def test_the_slider_shows_the_chosen_preset_beside_the_full_one(seen: Any) -> None:
    assert seen["chosen"] == "ultra"
    assert seen["clip"].startswith("inset(0") and "50%" not in seen["clip"]


def test_the_workflow_stays_as_it_was(seen: Any) -> None:
    assert seen["unchanged"] and seen["closed"] == 0


def test_cancel_empties_the_queue_of_its_own_run(seen: Any) -> None:
    """The scenario waits until nothing is left there."""
    assert seen["unchangedAfterCancel"]


def test_without_performance_mode_it_says_what_to_do(seen: Any) -> None:
    assert "put one between the model loader and the sampler" in seen["refused"]


def test_the_page_logs_no_error(seen: Any) -> None:
    # The browser itself tells of every answer that refuses something; the dialog has its sentence.
    (refused,) = seen["errors"]
    assert "status of 400" in refused and refused.endswith("/dit_acceleration/presets/prompts")

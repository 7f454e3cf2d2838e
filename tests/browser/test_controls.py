"""Badge, presets table, toggle command and settings in the real front end, both renderers."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import looks
import pytest

pytestmark = [pytest.mark.server, pytest.mark.browser]

STEPS = 16
ALWAYS, BYPASSED = 0, 4
FACTOR = re.compile(r"\d\.\d×")


@pytest.fixture(scope="module", params=looks.MOSTLY_CANVAS)
def seen(request: pytest.FixtureRequest, on_the_demo: Callable[..., Any]) -> Any:
    """What a person sees who plans, runs twice, reloads, switches off, and opens the settings."""
    vue, _ = request.param
    found = on_the_demo("controls", request.param, seed=800 + vue, steps=STEPS)
    return found | {"vue": vue}


def ours(texts: list[str]) -> list[str]:
    """The badges that are not the front end's own."""
    return [text for text in texts if FACTOR.fullmatch(text) or text in ("off", "replaced")]


def test_before_a_run_presets_are_planned_for_a_usual_model(seen: Any) -> None:
    head, off, *rows = seen["planned"]
    assert head == ["preset", "computed", "planned", "measured"]
    assert off[:3] == ["off", "all 28", "1×"]
    assert [row[0] for row in rows] == ["quality", "balanced", "fast", "ultra"]
    assert all(row[3] == "–" for row in rows) and rows[2][2] == "2.50×"
    assert "28 steps of a usual model" in seen["plannedFor"]


def test_after_runs_their_times_stand_beside_the_plan_of_this_model(seen: Any) -> None:
    rows = {row[0]: row for row in seen["measured"]}
    assert rows["off"][1] == f"all {STEPS}" and rows["off"][3].endswith(" s")
    assert re.fullmatch(r".+ s \(\d\.\d\d×\)", rows["fast"][3])
    assert rows["quality"][3] == "–"
    assert rows["fast"][2] != seen["planned"][4][2], "this model and fewer steps plan otherwise"
    assert f"{STEPS} steps and the model of the last run" in seen["measuredFor"]
    assert seen["reloaded"] == seen["measured"] and seen["closed"] == 0


def test_after_a_run_its_speed_stands_beside_the_planned_one(seen: Any) -> None:
    (planned,) = re.findall(r"× as fast, planned (\d\.\d\d)×", seen["gains"])
    rows = {row[0]: row for row in seen["measured"]}
    assert rows["fast"][2] == f"{planned}×"


def test_the_button_is_no_value_of_the_workflow(seen: Any) -> None:
    assert seen["values"] == ["auto", "fast", 2]


def test_the_badge_says_what_the_last_run_gained(seen: Any) -> None:
    assert ours(seen["badgeBefore"]) == [] and ours(seen["badgeOff"]) == ["off"]
    (factor,) = ours(seen["badge"])
    assert float(factor[:-1]) > 1
    assert ours(seen["badgeReloaded"]) == [factor]
    assert ours(seen["badgeBypassed"]) == ["off"] and ours(seen["replaced"]) == ["replaced"]
    if seen["vue"]:
        assert factor in seen["titleShown"]


def test_toggle_bypasses_all_that_a_model_goes_through_and_back(seen: Any) -> None:
    assert dict(seen["toggled"]) == {"AccelPerformanceMode": BYPASSED, "AccelReport": ALWAYS}
    assert {mode for _, mode in seen["toggledBack"]} == {ALWAYS}
    assert "Acceleration on or off" in seen["command"]


def test_a_new_node_has_the_preset_of_the_settings(seen: Any) -> None:
    assert seen["ofNew"] == "fast"


def test_panels_can_be_hidden(seen: Any) -> None:
    assert seen["panelsHidden"] and set(seen["panelsHidden"]) == {0}


def test_the_settings_tell_what_was_saved_and_forget_it(seen: Any) -> None:
    assert re.fullmatch(r".+ s in 1 run", seen["history"])
    assert seen["cleared"] == "nothing yet" and seen["kept"] == 0


def test_the_page_logs_no_error(seen: Any) -> None:
    assert seen["errors"] == []

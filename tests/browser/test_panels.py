"""The panel beside what people do with its node, in both renderers; the runs are pretended."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import looks
import pytest

from comfyui_environment import ROOT

pytestmark = [pytest.mark.server, pytest.mark.browser]

NODE = 12
WORKFLOWS = ROOT / "workflows"
BLUEPRINT = ROOT / "subgraphs" / "Accelerate (preset).json"


@pytest.fixture(scope="module", params=looks.MOSTLY_NODES_2)
def seen(request: pytest.FixtureRequest, on_the_demo: Callable[..., Any]) -> Any:
    """A node whose runs are pretended, and what people do with it."""
    blueprint = json.loads(BLUEPRINT.read_text(encoding="utf-8"))
    found = on_the_demo("panels", request.param, node=NODE, blueprint=blueprint)
    return found | {"vue": request.param[0]}


def test_with_room_below_all_of_it_is_shown(seen: Any) -> None:
    assert seen["free"]["hidden"] == 0 and "10 computed" in seen["free"]["text"]
    # Nodes 2.0 hides the advanced inputs, and leaves that room to it.
    assert (seen["free"]["height"] > seen["before"]["height"]) != seen["vue"]


def test_what_is_saved_has_no_room_for_it(seen: Any) -> None:
    assert seen["savedAfter"] == seen["savedBefore"]
    # The outer node of a subgraph has no room at all before, in either renderer.
    before, after = seen["subgraph"]["saved"]
    assert after == before and seen["subgraph"]["box"]["height"] > before[1] + 50


def test_a_pasted_node_has_no_hollow_body(seen: Any) -> None:
    assert seen["pasted"]["height"] == seen["before"]["height"]


@pytest.mark.parametrize(
    ("where", "gap"),
    [("room", "110"), ("room", "60"), ("roomOuter", "some"), ("roomOuter", "little")],
)
def test_the_first_run_does_not_push_the_node_over_what_lies_below(
    seen: Any, where: str, gap: str
) -> None:
    found = seen[where][gap]
    title = 30
    assert found["node"]["bottom"] < found["below"]["top"] - title
    assert found["hidden"] == 0


def test_with_less_room_less_is_shown_and_a_click_shows_the_rest(seen: Any) -> None:
    levels = [seen["roomOuter"][gap]["level"] for gap in ("some", "little")]
    assert levels == ["brief", "line"] and seen["opened"] == "full"
    assert "step 20 of 20" in seen["roomOuter"]["little"]["text"]
    assert "Skipped" not in seen["roomOuter"]["little"]["text"]


def test_room_inside_the_node_counts(seen: Any) -> None:
    """Nodes 2.0 hides the advanced inputs, and has their room."""
    levels = [seen["room"][gap]["level"] for gap in ("110", "60")]
    assert levels == (["full", "full"] if seen["vue"] else ["brief", "line"])


def test_a_node_that_does_not_run_dims_its_last_run(seen: Any) -> None:
    assert seen["runs"] == {"place": "step 20 of 20", "opacity": 1}
    for state in ("muted", "bypassed"):
        assert seen[state]["place"] == f"{state}, last run"
        assert seen[state]["opacity"] < 0.6


def test_the_badge_covers_nothing(seen: Any) -> None:
    assert seen["covered"] == []


def test_the_badge_is_shown_once_and_as_it_is_now(seen: Any) -> None:
    assert len(seen["factors"]) == seen["vue"] and seen["factorsReplaced"] == []


def test_a_replaced_node_says_by_whom(seen: Any) -> None:
    assert "replaced" in seen["replaced"]["text"]
    assert seen["replaced"]["sentence"].startswith("Apply TeaCache comes after it")
    assert seen["replaced"]["cells"] == {}


def test_a_subgraph_shows_the_run_on_the_outer_node_and_inside(seen: Any) -> None:
    assert "10 computed" in seen["subgraph"]["text"] and seen["subgraph"]["hidden"] == 0
    assert seen["subgraph"]["inner"].count("dit_acceleration_live") == 1


def test_the_blueprint_shows_it_too_and_keeps_its_widgets(seen: Any) -> None:
    assert seen["blueprint"]["text"].startswith("Performance Mode")
    shown = ["backend", "mode", "approximation", "target_speedup", "dit_acceleration_live"]
    assert seen["blueprint"]["widgets"] == shown
    assert "dit_acceleration_live" not in seen["blueprint"]["saved"]


def test_the_page_logs_no_error(seen: Any) -> None:
    assert seen["errors"] == []

"""The node's live report in the real front end: both node renderers, both themes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import looks
import pytest

pytestmark = [pytest.mark.server, pytest.mark.browser]

NODE = 12
STEPS = 28
# What WCAG 2.2 asks of text and of graphics.
TEXT_CONTRAST = 4.5
CELL_CONTRAST = 3.0


@pytest.fixture(scope="module", params=looks.ALL)
def seen(request: pytest.FixtureRequest, on_the_demo: Callable[..., Any]) -> Any:
    """What a person sees who opens the demo, runs it, reloads the page and runs it again."""
    vue, theme = request.param
    return on_the_demo(
        "live_report",
        request.param,
        node=NODE,
        seed=2 * vue + (theme == "light") * 4,
        inputs={"calibrator": "taylorseer" if vue else "none"},
    ) | {"skips": "forecast" if vue else "reused"}


def test_the_strip_fills_while_the_demo_runs(seen: Any) -> None:
    assert seen["before"] is None
    places = [text.splitlines()[1] for text in seen["while"]]
    steps = [int(place.split()[1]) for place in places]
    assert steps == sorted(steps) and len(set(steps)) > 3
    assert steps[-1] == STEPS and {place.split()[3] for place in places} == {str(STEPS)}


def test_the_sentence_says_what_was_gained(seen: Any) -> None:
    after = seen["after"]
    computed, skipped = after["cells"]["computed"]["count"], after["cells"][seen["skips"]]["count"]
    assert set(after["cells"]) == {"computed", seen["skips"]}
    assert computed + skipped == STEPS and skipped > 0
    assert after["sentence"].startswith(f"Skipped {skipped} of {STEPS} evaluations, about")
    assert f"{computed} computed" in after["text"]
    assert f"{skipped} {seen['skips']}" in after["text"]
    assert "saved" in after["text"] and "MiB on cpu" in after["text"]


def test_all_of_it_can_be_read(seen: Any) -> None:
    for panel in (seen["after"], seen["reloaded"], seen["again"]):
        assert panel["hidden"] == 0
        assert panel["textContrast"] >= TEXT_CONTRAST
        assert [c for c in panel["cells"].values() if c["contrast"] < CELL_CONTRAST] == []


def test_a_reloaded_page_shows_the_run_again(seen: Any) -> None:
    assert seen["reloaded"]["text"] == seen["after"]["text"]
    assert seen["reloaded"]["cells"] == seen["after"]["cells"]


def test_the_next_run_takes_its_place(seen: Any) -> None:
    assert sum(kind["count"] for kind in seen["again"]["cells"].values()) == 20
    assert "of 20 evaluations" in seen["again"]["sentence"]


def test_the_saved_workflow_and_the_prompt_know_nothing_of_it(seen: Any) -> None:
    assert seen["savedAfter"] == seen["savedBefore"] and len(seen["savedBefore"]) > 10
    assert not [name for name in seen["promptInputs"] if "live" in name]


def test_the_text_for_other_clients_is_not_shown_twice(seen: Any) -> None:
    assert [seen[when]["hostTexts"] for when in ("after", "again")] == [0, 0]


def test_the_run_of_another_workflow_is_not_shown(seen: Any) -> None:
    assert seen["foreign"]["text"] == seen["again"]["text"]


def test_many_branches_have_some_rows_and_a_count_of_the_rest(seen: Any) -> None:
    text = seen["branches"]["text"]
    assert seen["branches"]["rows"] == 4
    assert "cond [0-15]" in text and "and 2 more branches" in text
    assert "Cache-DiT, run 2" in text
    assert "95 s saved" in text and "3.00 GiB on gpu" in text
    assert set(seen["branches"]["cells"]) == {"computed", "reused", "forecast", "pending"}
    assert seen["branches"]["hidden"] == 0


def test_a_node_inside_a_subgraph_shows_its_run(seen: Any) -> None:
    assert seen["inside"].count("dit_acceleration_live") == 1


def test_the_page_logs_no_error(seen: Any) -> None:
    assert seen["errors"] == []

"""What people do with a graph whose node shows a run, in both renderers.

Other situations have tests of their own: the demo as it is, a reload after the run and both themes
(``test_live_report``), mute, bypass, copy and paste, subgraph (``test_panels``), the blueprint
(``test_blueprint``), the toggle command (``test_controls``), two samplers with equal settings
(``tests/host/test_equal_nodes``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import looks
import pytest

pytestmark = [pytest.mark.server, pytest.mark.browser]

NODE = 12
SPOKEN = {"zh": "第 20 步，共 20 步", "ja": "ステップ 20 / 20"}
PLACES = (
    *("as it is", "long title", "expanded", "group moved", "zoomed out", "small window"),
    *("undo", "redo"),
)


@pytest.fixture(scope="module", params=looks.MOSTLY_NODES_2)
def seen(request: pytest.FixtureRequest, on_the_demo: Callable[..., Any]) -> Any:
    """The demo's node, in each situation."""
    locale = "zh" if request.param[0] else "ja"
    return on_the_demo("tour", request.param, node=NODE, locale=locale) | {"locale": locale}


@pytest.mark.parametrize("place", PLACES)
def test_the_panel_stays_whole_and_in_its_node(seen: Any, place: str) -> None:
    found = seen["fits"][place]
    assert found["visible"] and found["out"] <= 0
    assert found["text"] == seen["fits"]["as it is"]["text"] and "10 computed" in found["text"]


def test_a_collapsed_node_shows_no_panel(seen: Any) -> None:
    assert not seen["fits"]["collapsed"]["visible"]


def test_cancel_says_where_it_stopped(seen: Any) -> None:
    found = seen["fits"]["cancelled"]
    assert found["visible"] and found["out"] <= 0
    assert "stopped in step" in found["text"] and "Stopped in step" in found["text"]


def test_a_page_reloaded_in_mid_run_goes_on_showing_it(seen: Any) -> None:
    assert seen["after"] >= seen["before"] + 8


def test_a_second_tab_is_not_told_of_the_first_ones_run(seen: Any) -> None:
    tabs = seen["tabs"]
    assert "step 13 of 13" in tabs["first"]
    assert tabs["after"] == tabs["before"] and "of 900" in tabs["before"]


def test_the_panel_speaks_the_language_of_the_page(seen: Any) -> None:
    assert SPOKEN[seen["locale"]] in seen["spoken"]


def test_the_page_logs_no_error(seen: Any) -> None:
    # After a reload in mid-run the newest front end is sent messages before it loads extensions.
    early = "Unknown message type dit_acceleration.progress"
    assert [error for error in seen["errors"] if not error.startswith(early)] == []

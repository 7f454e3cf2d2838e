"""Progressive Resolution on the node: which evaluations were small, what they took, and why."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import looks
import pytest

pytestmark = [pytest.mark.server, pytest.mark.browser]

STEPS = 20
MOST_MESSAGES = 10


@pytest.fixture(scope="module", params=looks.MOSTLY_NODES_2)
def seen(request: pytest.FixtureRequest, on_the_demo: Callable[..., Any]) -> Any:
    """Both panels after a run of Performance Mode with Progressive Resolution behind it."""
    # The server has no need to run the same twice.
    return on_the_demo("sizes", request.param, steps=STEPS, seed=70 + request.param[0])


@pytest.mark.parametrize("name", ["mode", "sizes"])
def test_small_evaluations_look_small_and_say_their_size(seen: Any, name: str) -> None:
    (last,) = [told for told in seen["told"] if told["node"] == seen["nodes"][name]][-1:]
    small, full = last["stages"]
    assert (small["full"], full["full"]) == (False, True) and small["size"] != full["size"]
    count = small["evaluations"]
    assert 1 <= count <= STEPS - 6 and count + full["evaluations"] == STEPS
    narrow, wide = seen[name]["widths"][:count], seen[name]["widths"][count:]
    assert len(narrow) + len(wide) == STEPS and max(narrow) < 0.6 * min(wide)
    first, end = seen[name]["said"]
    assert f"step 1 at {small['size']}: computed" in first
    assert f"step {STEPS} at {full['size']}: " in end


@pytest.mark.parametrize("name", ["mode", "sizes"])
def test_seconds_by_size_and_the_reason_of_the_switch_can_be_read(seen: Any, name: str) -> None:
    last = [told for told in seen["told"] if told["node"] == seen["nodes"][name]][-1]
    panel = seen[name]["panel"]
    for stage in last["stages"]:
        assert f"{stage['evaluations']} at {stage['size']}: " in panel["text"]
        assert stage["seconds"] > 0
    assert "Full size from sigma 0.8 on (set to 0.8)" in panel["text"]
    factor = re.search(r"([\d.]+)× as fast", panel["text"])
    # On a machine that is quick with the tiny model, half the size may save nothing.
    assert (factor is not None) == (last["seconds_saved"] > 0)
    if factor is not None and name == "sizes":
        assert f"{factor[1]} times as fast as all at full size" in panel["sentence"]
    assert panel["hidden"] == 0 and panel["hostTexts"] == 0


def test_a_run_sends_few_messages(seen: Any) -> None:
    assert 4 <= len(seen["told"]) <= MOST_MESSAGES


def test_the_page_logs_no_error(seen: Any) -> None:
    assert seen["errors"] == []

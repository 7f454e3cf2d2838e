"""Performance Mode in the real front end: another approximation, another run, another panel."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

pytestmark = [pytest.mark.server, pytest.mark.browser]

STEPS = 20


def test_the_panel_follows_the_approximation_chosen_on_the_node(
    on_the_demo: Callable[..., Any],
) -> None:
    chosen = ["quality", "ultra", "off"]
    look = (False, "dark")
    seen = on_the_demo("performance_mode", look, approximations=chosen, steps=STEPS)
    assert seen["errors"] == [] and seen["values"] == chosen
    quality, ultra, off = seen["panels"]
    for panel in (quality, ultra):
        cells = {kind: cell["count"] for kind, cell in panel["cells"].items()}
        # A skip right after the first computed evaluation has nothing to forecast from.
        skipped = cells["forecast"] + cells.pop("reused", 0)
        assert set(cells) == {"computed", "forecast"}
        assert cells["computed"] + skipped == STEPS
        said = f"Skipped {skipped} of {STEPS} evaluations, about"
        assert panel["sentence"].startswith(said)
    assert ultra["cells"]["computed"]["count"] < quality["cells"]["computed"]["count"]
    assert ultra["sentence"] != quality["sentence"]
    # With nothing skipped the node has no strip, and above all not that of the run before.
    assert off["cells"] == {} and "saved" not in off["text"]
    assert "Performance Mode (auto, off)" in off["text"]
    assert "every evaluation is computed" in off["sentence"]
    assert seen["reloaded"]["text"] == off["text"]
    assert [panel["hidden"] for panel in seen["panels"]] == [0, 0, 0]
    assert [panel["hostTexts"] for panel in seen["panels"]] == [0, 0, 0]

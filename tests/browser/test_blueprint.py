"""The blueprint "Accelerate (preset)": found in the node search, shows its settings, and runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

import example_blueprint
from comfyui_server import Server
from comfyui_workflow import find
from demo_measurement import WORKFLOW

pytestmark = [pytest.mark.server, pytest.mark.browser]

VALUES = {"approximation": "target", "target_speedup": 1.5}


@pytest.fixture(scope="module")
def used(scenario: Callable[..., Any]) -> dict[str, Any]:
    """What the front end made of the blueprint in the demo workflow."""
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    title = example_blueprint.NAME
    found: dict[str, Any] = scenario("blueprint", title=title, workflow=workflow, values=VALUES)
    return found


def test_it_opens_and_shows_the_widgets_of_the_chain(used: dict[str, Any]) -> None:
    assert used["errors"] == []
    assert list(used["shown"]) == [name for link in example_blueprint.CHAIN for name in link.shown]


def test_its_nodes_are_in_the_prompt_with_the_values_that_were_set(used: dict[str, Any]) -> None:
    prompt = used["prompt"]
    (attention,) = find(prompt, "AccelAttentionBackend")
    (mode,) = find(prompt, "AccelPerformanceMode")
    assert prompt[mode]["inputs"]["model"] == [attention, 0]
    assert {name: prompt[mode]["inputs"][name] for name in VALUES} == VALUES
    assert prompt[attention]["inputs"]["backend"] == "auto"


def test_the_demo_runs_with_it(used: dict[str, Any], server: Server) -> None:
    prompt = used["prompt"]
    shown = server.run(prompt)
    (report,) = find(prompt, "AccelReport")
    data = json.loads(shown[report]["text"][1])
    assert 0 < data["computed"] < data["evaluations"]

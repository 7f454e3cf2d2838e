"""Old workflows in the real front end: it offers ours for the dead nodes, and the result runs."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from comfyui_environment import ROOT
from comfyui_server import Server
from comfyui_workflow import find
from old_workflows import EXPECTED, SAVED

pytestmark = [pytest.mark.server, pytest.mark.browser]

FIXTURES = ROOT / "tests" / "data" / "old_workflows"
OLD = sorted(SAVED)


@pytest.fixture(scope="module")
def replaced(scenario: Callable[..., Any]) -> dict[str, Any]:
    """What the front end made of each old workflow; all in one page, as that is much faster."""
    workflows = {
        old: json.loads((FIXTURES / f"{old}.json").read_text(encoding="utf-8")) for old in OLD
    }
    found: dict[str, Any] = scenario("old_workflows", workflows=workflows)
    return found


@pytest.mark.parametrize("old", OLD)
def test_replaced_node_has_the_values_of_the_old_one(replaced: dict[str, Any], old: str) -> None:
    assert replaced[old]["errors"] == []
    prompt = replaced[old]["prompt"]
    new, values = EXPECTED[old]
    (key,) = find(prompt, new)
    inputs = prompt[key]["inputs"]
    assert {name: inputs[name] for name in values} == values
    # Both ends of the chain hang on it still.
    assert inputs["model"][0] in prompt
    sampler = prompt[find(prompt, "KSampler")[0]]
    assert sampler["inputs"]["model"] == [key, 0]


@pytest.mark.parametrize("old", OLD)
def test_replaced_workflow_runs(replaced: dict[str, Any], server: Server, old: str) -> None:
    prompt = replaced[old]["prompt"]
    shown = server.run(prompt)
    (saved,) = find(prompt, "SaveImage")
    assert server.file(shown[saved]["images"][0]).is_file()

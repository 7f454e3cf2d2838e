"""Saved workflows become prompts with the right names on the right values."""

from __future__ import annotations

from typing import Any

import pytest

from comfyui_workflow import WorkflowError, downstream, find, to_prompt

INFO: dict[str, Any] = {
    "Load": {"input": {"required": {"file": [["a", "b"]]}}, "display_name": "Load It"},
    "Sample": {
        "input": {
            "required": {
                "steps": ["INT", {"default": 20}],
                "seed": ["INT", {"control_after_generate": True}],
                "model": ["MODEL"],
                "size": ["INT", {"forceInput": True}],
            },
            "optional": {"name": ["COMBO", {"options": ["x", "y"]}]},
            "hidden": {"prompt": "PROMPT"},
        },
        # The order that the node shows, which is not that of the table above.
        "input_order": {"required": ["model", "size", "seed", "steps"], "optional": ["name"]},
    },
}


def saved(**changes: Any) -> dict[str, Any]:
    sample = {
        "id": 7,
        "type": "Sample",
        "title": "Mine",
        "inputs": [
            {"name": "model", "link": 1},
            {"name": "size", "link": 2},
            {"name": "steps", "link": None, "widget": {"name": "steps"}},
        ],
        "widgets_values": [42, "fixed", 28, "y"],
    }
    sample.update(changes)
    return {
        "nodes": [
            {"id": 3, "type": "Load", "widgets_values": ["b"]},
            sample,
            {"id": 9, "type": "MarkdownNote", "widgets_values": ["text"]},
        ],
        "links": [[1, 3, 0, 7, 0, "MODEL"], [2, 3, 1, 7, 1, "INT"]],
    }


def test_values_and_links_get_their_names() -> None:
    assert to_prompt(saved(), INFO) == {
        "3": {"class_type": "Load", "inputs": {"file": "b"}, "_meta": {"title": "Load It"}},
        "7": {
            "class_type": "Sample",
            "inputs": {"model": ["3", 0], "size": ["3", 1], "seed": 42, "steps": 28, "name": "y"},
            "_meta": {"title": "Mine"},
        },
    }


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"widgets_values": [42, 28, "y"]}, "has 3 widget values for 4 widgets: seed, control"),
        ({"type": "Gone"}, "Node 7: the server has no node class Gone"),
        ({"mode": 4}, r"Node 7 \(Sample\) is muted or bypassed"),
    ],
)
def test_workflow_that_does_not_fit_is_refused(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(WorkflowError, match=message):
        to_prompt(saved(**changes), INFO)


def test_downstream_finds_all_that_depends_on_a_node() -> None:
    prompt = to_prompt(saved(), INFO)
    assert downstream(prompt, "3") == {"3", "7"}
    assert downstream(prompt, "7") == {"7"}
    assert find(prompt, "Sample") == ["7"]

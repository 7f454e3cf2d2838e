"""Old workflows with nodes of packs that no longer work: ours open in their place and run."""

from __future__ import annotations

import importlib
import json
from typing import Any

import pytest
from whole import first

import old_workflows
from comfyui_environment import ROOT
from comfyui_server import Server, failure_of
from comfyui_workflow import Prompt, choices_of, find, inputs_of, options_of, to_prompt
from example_builder import as_json
from workflow_check import refused

pytestmark = [pytest.mark.server]

FIXTURES = ROOT / "tests" / "data" / "old_workflows"
OLD = sorted(old_workflows.SAVED)


@pytest.fixture(scope="module")
def info(server: Server) -> dict[str, Any]:
    return server.object_info()


def replacements() -> Any:
    return importlib.import_module("dit_acceleration_pack.nodes.replacements").REPLACEMENTS


def fixture(old: str) -> dict[str, Any]:
    workflow: dict[str, Any] = json.loads((FIXTURES / f"{old}.json").read_text(encoding="utf-8"))
    return workflow


@pytest.mark.parametrize("old", OLD)
def test_fixtures_are_what_the_builder_makes(info: dict[str, Any], old: str) -> None:
    """If this fails, run ``python3 workflows/make_examples.py``."""
    made = as_json(old_workflows.build(info, old))
    assert (FIXTURES / f"{old}.json").read_text(encoding="utf-8") == made


@pytest.mark.every_host
def test_every_replacement_fits_our_nodes(info: dict[str, Any]) -> None:
    """Inputs exist, fixed values are allowed, and carried ones are widgets of the old node."""
    for entry in replacements():
        specs = dict(inputs_of(info[entry.new]))
        assert next(iter(specs)) == "model" and info[entry.new]["output"][0] == "MODEL"
        assert set(entry.carried.values()) <= set(entry.widgets), entry.old
        assert set(entry.carried) | set(entry.fixed) <= set(specs), entry.old
        for name, value in entry.fixed.items():
            assert refused(specs[name], value) == "", (entry.old, name)


@pytest.mark.every_host
@pytest.mark.parametrize("old", OLD)
def test_carried_inputs_accept_what_the_old_node_allowed(info: dict[str, Any], old: str) -> None:
    """Same kind of value; a choice of the old node is a choice of ours."""
    entry = next(entry for entry in replacements() if entry.old == old)
    old_specs = dict(inputs_of(old_workflows.NODES[old]))
    new_specs = dict(inputs_of(info[entry.new]))
    assert list(old_specs) == ["model", *entry.widgets]
    for new, name in entry.carried.items():
        choices = choices_of(old_specs[name])
        if choices is not None:
            assert set(choices) <= set(choices_of(new_specs[new]) or ()), (old, name)
            continue
        assert old_specs[name][0] == new_specs[new][0], (old, name)
        default = options_of(old_specs[name])["default"]
        limits = options_of(new_specs[new])
        assert limits["min"] <= default <= limits["max"], (old, name)


@pytest.mark.every_host
def test_the_server_tells_the_page_of_every_replacement(server: Server) -> None:
    told = server.get("/node_replacements")
    for entry in replacements():
        (found,) = told[entry.old]
        assert found["new_node_id"] == entry.new
        assert found["old_widget_ids"] == list(entry.widgets)
        assert found["output_mapping"] == [{"old_idx": 0, "new_idx": 0}]
        assert {"new_id": "model", "old_id": "model"} in found["input_mapping"]


@pytest.mark.every_host
@pytest.mark.parametrize("old", first(OLD))
def test_old_workflow_runs_with_ours_in_its_place(
    server: Server, info: dict[str, Any], old: str
) -> None:
    """Over the API, where the server itself replaces."""
    new, values = old_workflows.EXPECTED[old]
    prompt = to_prompt(fixture(old), {**info, **old_workflows.NODES})
    (key,) = find(prompt, old)
    sampler = find(prompt, "KSampler")[0]
    prompt["report"] = {
        "class_type": "AccelReport",
        "inputs": {"model": [key, 0], "after": [sampler, 0]},
        "_meta": {"title": "Report"},
    }
    entry = server.wait(server.submit(prompt))
    assert failure_of(entry) is None
    ran: Prompt = entry["prompt"][2]
    assert ran[key]["class_type"] == new
    assert ran[key]["inputs"].pop("model")[0] in ran
    assert ran[key]["inputs"] == values
    text, data = entry["outputs"]["report"]["text"]
    assert "has no acceleration" not in text
    assert json.loads(data), text

"""docs/api.md is true: its fields are those of real messages, and its client runs."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from comfyui_environment import ROOT
from comfyui_server import Server, ServerError
from comfyui_workflow import Prompt, find
from demo_measurement import Workflow
from live_client import LiveClient

pytestmark = [pytest.mark.server, pytest.mark.every_host]

DOCUMENT = (ROOT / "docs" / "api.md").read_text(encoding="utf-8")
PROGRESS, PRESETS = "dit_acceleration.progress", "dit_acceleration.presets"
STEPS = 12
MOST_LINES = 30
KINDS = {"int": int, "float": float, "str": str, "list": list, "dict": dict, "null": type(None)}


def graph_of(workflow: Workflow, seed: int, approximation: str) -> Prompt:
    graph = workflow.filled(workflow.prompts[0], seed, 3.0, STEPS)
    inputs = {"model": graph[workflow.apply]["inputs"]["model"], "approximation": approximation}
    graph[workflow.apply] = {"class_type": "AccelPerformanceMode", "inputs": inputs}
    return graph


def fields_of(message: str) -> dict[str, tuple[type, ...]]:
    """Names of the documented fields and what they may be."""
    table = re.search(rf"<!-- fields: {message} -->\n(.*?)<!-- /fields -->", DOCUMENT, re.DOTALL)
    assert table is not None
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \|", table[1], re.MULTILINE)
    return {name: tuple(KINDS[k.split()[0]] for k in told.split(" or ")) for name, told in rows}


def fits(value: Any, kinds: tuple[type, ...]) -> bool:
    return isinstance(value, kinds) or (float in kinds and isinstance(value, int))


@pytest.mark.parametrize("approximation", ["fast", "off"])
def test_every_field_is_documented_and_there(
    server: Server, client: LiveClient, workflow: Workflow, approximation: str
) -> None:
    server.run(graph_of(workflow, 81, approximation))
    client.wait(lambda: bool(client.of(PRESETS)))
    for message in (PROGRESS, PRESETS):
        documented, found = fields_of(message), client.of(message)
        assert found
        for event in found:
            assert set(event) == set(documented), message
            wrong = [name for name, kinds in documented.items() if not fits(event[name], kinds)]
            assert wrong == [], message
            assert event["version"] == 1


def test_after_a_run_the_plan_of_each_preset_is_told(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    server.run(graph_of(workflow, 82, "fast"))
    client.wait(lambda: bool(client.of(PRESETS)))
    (told,) = client.of(PRESETS)
    assert (told["node"], told["approximation"], told["steps"]) == (workflow.apply, "fast", STEPS)
    assert told["seconds"] > 0 and 0 < told["skipped_cost"] < 0.3 and told["computed_cost"] >= 1
    rows = {row["preset"]: row for row in told["presets"]}
    assert list(rows) == ["off", "quality", "balanced", "fast", "ultra"]
    last = client.of(PROGRESS)[-1]
    assert last["computed"] == pytest.approx(rows["fast"]["computed"], abs=1)
    assert last["promised"] == pytest.approx(rows["fast"]["speedup"]), "of the same costs"
    asked = {"steps": STEPS} | {name: told[name] for name in ("computed_cost", "skipped_cost")}
    assert server.post("/dit_acceleration/presets/outlook", asked)["presets"] == told["presets"]
    unknown = {"steps": STEPS, "skipped_cost": None}
    left_out = server.post("/dit_acceleration/presets/outlook", {"steps": STEPS})
    assert server.post("/dit_acceleration/presets/outlook", unknown) == left_out


def test_attention_backend_shows_who_computed_how_many_calls(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    graph = graph_of(workflow, 84, "off")
    mode = graph[workflow.apply]["inputs"]
    graph["attention"] = {
        "class_type": "AccelAttentionBackend",
        "inputs": {"model": mode["model"], "backend": "sdpa_math"},
    }
    mode["model"] = ["attention", 0]
    server.run(graph)
    client.wait(lambda: any(event["node"] == "attention" for event in client.of(PROGRESS)))
    last = [event for event in client.of(PROGRESS) if event["node"] == "attention"][-1]
    assert last["outcome"] == "finished" and last["steps"] == STEPS and last["rows"] == []
    assert last["technique"] == "Attention Backend (sdpa_math)"
    calls = sum(last["counts"].values())
    assert calls > STEPS and f"of {calls} calls sdpa_math {calls}" in last["sentence"]


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({}, "steps is None"),
        ([8], "steps is None"),
        ({"steps": 0}, "between 1"),
        ({"steps": 8, "skipped_cost": 2}, "skipped_cost is 2"),
        ({"steps": 8, "skipped_cost": 0.1, "computed_cost": 0}, "computed_cost is 0"),
    ],
)
def test_what_cannot_be_planned_gets_a_sentence(server: Server, asked: Any, told: str) -> None:
    with pytest.raises(ServerError, match=told):
        server.post("/dit_acceleration/presets/outlook", asked)


def test_the_example_client_runs(server: Server, workflow: Workflow, tmp_path: Path) -> None:
    block = re.search(r"^```python\n(.*?)^```", DOCUMENT, re.MULTILINE | re.DOTALL)
    assert block is not None
    code = block[1]
    assert len([line for line in code.splitlines() if line.strip()]) <= MOST_LINES
    (tmp_path / "client.py").write_text(code, encoding="utf-8")
    graph = graph_of(workflow, 83, "balanced")
    (tmp_path / "workflow.json").write_text(json.dumps(graph), encoding="utf-8")
    address = server.url.partition("//")[2]
    command = [sys.executable, "client.py", address, "workflow.json"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    *_, last = done.stdout.splitlines()
    (mode,) = find(graph, "AccelPerformanceMode")
    assert last.split()[0] == mode and "skipped" in last
    assert sum(map(int, last.split()[1:3])) == STEPS

"""Two nodes with equal settings on one loader: each shows its own runs, and weights stay loaded."""

from __future__ import annotations

import copy
import json
from typing import Any

import pytest
import tiny_models as tm

from comfyui_server import Server
from comfyui_workflow import Prompt, find
from demo_measurement import Workflow
from live_client import LiveClient

EVENT = "dit_acceleration.progress"
STEPS = 12

on_the_server = (pytest.mark.server, pytest.mark.every_host)


def marked(*marks: Any) -> Any:
    """The marks of a test that asks the server."""

    def add(test: Any) -> Any:
        for mark in marks:
            test = mark(test)
        return test

    return add


def test_who_shows_runs_on_itself_is_told_apart_by_the_host() -> None:
    """The host's memory would hand the output of one to an equal one, with the id of the first."""
    from comfy_api.latest import io

    from dit_acceleration_pack.nodes import NODES

    schemas = [node.define_schema() for node in NODES]
    shown = [schema for schema in schemas if io.Hidden.unique_id in schema.hidden]
    # Makes weights, which equal nodes share; it shows no runs.
    shown = [schema for schema in shown if schema.node_id != "AccelQuantize"]
    assert len(shown) >= 6
    assert [schema.node_id for schema in shown if not schema.not_idempotent] == []


def test_equal_nodes_on_one_loader_load_its_weights_once(monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_patcher

    from dit_acceleration_pack.nodes.performance_mode import PerformanceMode

    model = tm.make_model("flux")
    loads: list[int] = []
    load = comfy.model_patcher.ModelPatcher.load
    monkeypatch.setattr(
        comfy.model_patcher.ModelPatcher,
        "load",
        lambda self, *args, **kwargs: (loads.append(1), load(self, *args, **kwargs))[1],
    )
    key = "diffusion_model.img_in.weight"
    weight = model.model.diffusion_model.img_in.weight
    model.add_patches({key: ("diff", (weight.detach().clone() * 0.01,))})
    one, two = (PerformanceMode.execute(model=model).result[0] for _ in range(2))
    for each in (one, two, one):
        tm.sample(each, "flux", steps=4)
    assert len(loads) == 1
    assert [tm.report_of(each).steps for each in (one, two)] == [4, 4]


def two_modes(workflow: Workflow, seed: int) -> Prompt:
    """Two Performance Modes with equal settings on the loader, each with sampler and report."""
    demo = workflow.filled(workflow.prompts[0], seed, 1.0, STEPS)
    loader = demo[workflow.apply]["inputs"]["model"]
    sampler = next(
        node for key, node in demo.items()
        if key in workflow.accelerated and node["class_type"] == "KSampler"
    )  # fmt: skip
    fed = {key: value for key, value in sampler["inputs"].items() if isinstance(value, list)}
    graph: Prompt = {}
    ahead = [link[0] for name, link in fed.items() if name != "model"] + [loader[0]]
    while ahead:
        key = ahead.pop()
        graph[key] = demo[key]
        ahead += [v[0] for v in demo[key]["inputs"].values() if isinstance(v, list)]
    for steps, name in ((STEPS, "one"), (STEPS - 2, "two")):
        own = copy.deepcopy(sampler)
        own["inputs"].update(model=[f"mode {name}", 0], steps=steps)
        graph[f"mode {name}"] = {
            "class_type": "AccelPerformanceMode",
            "inputs": {"model": loader, "approximation": "fast"},
        }
        graph[f"sampler {name}"] = own
        graph[f"report {name}"] = {
            "class_type": "AccelReport",
            "inputs": {"model": [f"mode {name}", 0], "after": [f"sampler {name}", 0]},
        }
    return graph


@marked(*on_the_server)
def test_each_of_two_equal_nodes_shows_its_own_run(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    for seed in (70, 71):
        graph = two_modes(workflow, seed)
        prompt = server.submit(graph)
        entry = server.wait(prompt)
        assert entry["status"]["completed"], entry["status"]
        client.wait(lambda p=prompt: any(
            e["node"] is None and e["prompt_id"] == p for e in client.of("executing")
        ))  # fmt: skip
        told = [e for e in client.of(EVENT) if e["prompt_id"] == prompt]
        assert {(e["node"], e["run"]) for e in told} == {("mode one", 1), ("mode two", 1)}
        for name, steps in (("one", STEPS), ("two", STEPS - 2)):
            last = [e for e in told if e["node"] == f"mode {name}"][-1]
            assert last["steps"] == steps and last["outcome"] == "finished"
            _, data = entry["outputs"][f"report {name}"]["text"]
            assert json.loads(data)["steps"] == steps
    # What the second prompt shares with the first was not run again, the loader above all.
    cached = next(
        message["nodes"] for kind, message in entry["status"]["messages"]
        if kind == "execution_cached"
    )  # fmt: skip
    assert set(find(graph, "UNETLoader")) <= set(cached)


@marked(*on_the_server)
def test_a_node_under_another_id_shows_its_run_there(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    """As when a person turns it into a subgraph; the host would take all of it from its memory."""
    graph = two_modes(workflow, 72)
    server.run(graph)
    moved = json.loads(json.dumps(graph).replace('"mode one"', '"12:mode one"'))
    server.run(moved)
    client.wait(lambda: any(e["node"] == "12:mode one" for e in client.of(EVENT)))

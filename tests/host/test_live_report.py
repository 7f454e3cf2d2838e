"""What the server tells its client while the pack samples: right numbers, for every run."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from comfyui_server import Server
from comfyui_workflow import Prompt, find
from demo_measurement import Workflow
from live_client import LiveClient

pytestmark = [pytest.mark.server, pytest.mark.every_host]

EVENT = "dit_acceleration.progress"
STEPS = 14


@pytest.fixture(scope="module")
def workflow(server: Server) -> Workflow:
    return Workflow(server)


@pytest.fixture
def client(server: Server) -> Iterator[LiveClient]:
    with LiveClient(server) as listening:
        yield listening


def graph_of(workflow: Workflow, seed: int, steps: int = STEPS, **sampling: Any) -> Prompt:
    """The accelerated branch of the demo alone."""
    graph = workflow.filled(workflow.prompts[0], seed, 3.0, steps)
    graph = {key: node for key, node in graph.items() if key in wanted(workflow, graph)}
    for key in find(graph, "KSampler"):
        graph[key]["inputs"].update(sampling)
    return graph


def wanted(workflow: Workflow, graph: Prompt) -> set[str]:
    """The accelerated nodes and everything that they read."""
    found = set(workflow.accelerated)
    while True:
        more = {
            value[0]
            for key in found
            for value in graph[key]["inputs"].values()
            if isinstance(value, list)
        } - found
        if not more:
            return found
        found |= more


def runs_of(client: LiveClient, prompt: str) -> list[list[dict[str, Any]]]:
    """The events of a prompt, grouped by run."""
    events = [event for event in client.of(EVENT) if event["prompt_id"] == prompt]
    numbers = list(dict.fromkeys(event["run"] for event in events))
    return [[event for event in events if event["run"] == number] for number in numbers]


def finish(server: Server, client: LiveClient, graph: Prompt) -> list[list[dict[str, Any]]]:
    """Run a prompt; its events, grouped by run."""
    prompt = server.submit(graph)
    entry = server.wait(prompt)
    assert entry["status"]["completed"], entry["status"]
    client.wait(lambda: any(e["node"] is None for e in client.of("executing")))
    return runs_of(client, prompt)


def check_numbers(event: dict[str, Any]) -> None:
    """Counts, marks and places of one event belong together."""
    marks = "".join(row["marks"] for row in event["rows"])
    assert marks.count("c") == event["computed"]
    assert len(marks) - marks.count("c") == event["skipped"]
    for row in event["rows"]:
        assert len(row["marks"]) == len(row["steps"]) == len(row["reasons"])
        assert row["steps"] == sorted(row["steps"])
        assert max(row["reasons"]) < len(event["reasons"])
    assert event["step"] == max(row["steps"][-1] for row in event["rows"]) < event["steps"]


def test_a_run_fills_the_strip_and_ends_with_its_sentence(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    (events,) = finish(server, client, graph_of(workflow, 31, calibrator="none"))
    for event in events:
        check_numbers(event)
        assert event["node"] == workflow.apply
    counts = [event["computed"] + event["skipped"] for event in events]
    assert counts == sorted(counts) and len(counts) > 2
    *before, last = events
    assert {event["outcome"] for event in before} == {"running"}
    assert last["outcome"] == "finished"
    assert counts[-1] == last["steps"] == STEPS
    assert 0 < last["skipped"] < STEPS
    assert last["seconds_saved"] is not None and last["residual_bytes"] > 0
    assert last["sentence"].startswith(f"Cache-DiT: skipped {last['skipped']} of {STEPS}")
    texts = [text for node, text in client.texts if node == workflow.apply]
    assert len(texts) >= 2 and texts[-1] == last["sentence"]

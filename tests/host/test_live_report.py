"""What the server tells its client while the pack samples: right numbers, for every run."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from comfyui_server import Server
from comfyui_workflow import Prompt, find
from demo_measurement import Workflow
from live_client import LiveClient

pytestmark = [pytest.mark.server, pytest.mark.every_host]

EVENT = "dit_acceleration.progress"
STEPS = 14


def graph_of(workflow: Workflow, seed: int, steps: int = STEPS, **changes: Any) -> Prompt:
    """The accelerated branch of the demo alone, with changes of inputs by their names."""
    graph = workflow.filled(workflow.prompts[0], seed, 3.0, steps)
    graph = {key: node for key, node in graph.items() if key in wanted(workflow, graph)}
    for kind in ("KSampler", "AccelApplyCacheDiT"):
        inputs = graph[find(graph, kind)[0]]["inputs"]
        inputs.update({name: value for name, value in changes.items() if name in inputs})
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


def over(client: LiveClient, prompt: str) -> bool:
    """Whether the client was told of the end of a prompt's last run."""
    runs = runs_of(client, prompt)
    return bool(runs) and runs[-1][-1]["outcome"] != "running"


def finish(server: Server, client: LiveClient, graph: Prompt) -> list[list[dict[str, Any]]]:
    """Run a prompt; its events, grouped by run."""
    prompt = server.submit(graph)
    entry = server.wait(prompt)
    assert entry["status"]["completed"], entry["status"]
    client.wait(
        lambda: any(e["node"] is None and e["prompt_id"] == prompt for e in client.of("executing"))
    )
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
    *before, last = events
    # One after the first evaluation, one at the end, and in between as many as there is time for.
    assert counts == sorted(counts) and counts[0] == 1 and len(counts) >= 2
    assert {event["outcome"] for event in before} == {"running"}
    assert last["outcome"] == "finished"
    assert counts[-1] == last["steps"] == STEPS
    assert 0 < last["skipped"] < STEPS
    assert last["seconds_saved"] is not None and last["residual_bytes"] > 0
    assert last["sentence"].startswith(f"Cache-DiT: skipped {last['skipped']} of {STEPS}")
    texts = [text for node, text in client.texts if node == workflow.apply]
    assert len(texts) >= 2 and texts[-1] == last["sentence"]


def test_heun_counts_evaluations_and_not_steps(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    (events,) = finish(server, client, graph_of(workflow, 32, sampler_name="heun"))
    last = events[-1]
    check_numbers(last)
    # heun evaluates twice in every step but the last.
    assert last["computed"] + last["skipped"] == 2 * STEPS - 1
    assert last["steps"] == STEPS == last["step"] + 1
    assert f"of {2 * STEPS - 1} evaluations" in last["sentence"]


def test_cancel_says_where_it_stopped_and_leaves_nothing_over(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    running = server.submit(graph_of(workflow, 33, steps=2000))
    client.wait(lambda: any(e["prompt_id"] == running and e["step"] > 5 for e in client.of(EVENT)))
    server.interrupt()
    server.wait(running)
    client.wait(lambda: over(client, running))
    last = runs_of(client, running)[-1][-1]
    check_numbers(last)
    assert last["outcome"] == "interrupted" and last["step"] < 1999
    assert f"stopped in step {last['step'] + 1} of 2000" in last["sentence"]

    (events,) = finish(server, client, graph_of(workflow, 33))
    for event in events:
        check_numbers(event)
    assert events[-1]["computed"] + events[-1]["skipped"] == STEPS
    assert "stopped" not in events[-1]["sentence"]


def test_two_samplers_of_one_model_are_two_runs(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    graph = graph_of(workflow, 34)
    first = find(graph, "KSampler")[0]
    second = copy.deepcopy(graph[first])
    second["inputs"].update(steps=8, seed=35, latent_image=[first, 0])
    readers = [node for node in graph.values() if [first, 0] in node["inputs"].values()]
    graph["second"] = second
    for node in readers:
        for name, value in node["inputs"].items():
            if value == [first, 0]:
                node["inputs"][name] = ["second", 0]
    runs = finish(server, client, graph)
    assert [events[-1]["run"] for events in runs] == [1, 2]
    assert [events[-1]["steps"] for events in runs] == [STEPS, 8]
    for events in runs:
        check_numbers(events[-1])
        assert {event["outcome"] for event in events[:-1]} <= {"running"}
        assert events[-1]["computed"] + events[-1]["skipped"] == events[-1]["steps"]


def test_a_queue_of_three_prompts_begins_anew_each_time(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    """The host runs the caching node only in the first of them."""
    graphs = [graph_of(workflow, 40 + i, steps=STEPS + i) for i in range(3)]
    prompts = [server.submit(graph) for graph in graphs]
    for prompt in prompts:
        assert server.wait(prompt)["status"]["completed"]
    client.wait(lambda: all(over(client, prompt) for prompt in prompts))
    for steps, prompt in enumerate(prompts, STEPS):
        (events,) = runs_of(client, prompt)
        assert events[0]["computed"] + events[0]["skipped"] < steps
        for event in events:
            check_numbers(event)
            assert (event["node"], event["run"], event["steps"]) == (workflow.apply, 1, steps)
        assert events[-1]["computed"] + events[-1]["skipped"] == steps


def test_few_steps_say_how_many_could_be_skipped(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    changes = {"max_warmup_steps": 4, "max_continuous_cached_steps": 2}
    (events,) = finish(server, client, graph_of(workflow, 50, steps=8, **changes))
    # Of the four steps after the warm-up the third must be computed.
    assert "8 steps, warm-up 4: only 3 could be skipped" in events[-1]["sentence"]


def test_performance_mode_shows_its_runs_as_well(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    graph = graph_of(workflow, 55)
    inputs = {"model": graph[workflow.apply]["inputs"]["model"], "approximation": "fast"}
    graph[workflow.apply] = {"class_type": "AccelPerformanceMode", "inputs": inputs}
    (events,) = finish(server, client, graph)
    check_numbers(events[-1])
    assert {event["node"] for event in events} == {workflow.apply}
    assert events[-1]["skipped"] > 0
    assert events[-1]["computed"] + events[-1]["skipped"] == STEPS


def test_a_performance_mode_that_skips_nothing_takes_the_last_run_away(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    """Whether it is off, or leaves the skipping to a node before it."""
    graph = graph_of(workflow, 56)
    off = {"model": graph[workflow.apply]["inputs"]["model"], "approximation": "off"}
    both = copy.deepcopy(graph)
    graph[workflow.apply] = {"class_type": "AccelPerformanceMode", "inputs": off}
    (events,) = finish(server, client, graph)
    assert [event["outcome"] for event in events] == ["running", "finished"]
    assert [(event["rows"], event["seconds_saved"]) for event in events] == [([], None)] * 2
    assert events[0]["sentence"] == ""
    assert "): approximation: off, every evaluation is computed" in events[1]["sentence"]

    for node in both.values():
        for name, value in node["inputs"].items():
            if value == [workflow.apply, 0]:
                node["inputs"][name] = ["mode", 0]
    both["mode"] = {"class_type": "AccelPerformanceMode", "inputs": {"model": [workflow.apply, 0]}}
    finish(server, client, both)
    told = [event for event in client.of(EVENT) if event["node"] == "mode"]
    assert [event["rows"] for event in told] == [[], []]
    assert "approximation: set by Cache-DiT, kept" in told[-1]["sentence"]
    watched = [event for event in client.of(EVENT) if event["node"] == workflow.apply]
    assert watched[-1]["skipped"] > 0


def test_forecast_cells_are_told_from_reused_ones(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    (held,) = finish(server, client, graph_of(workflow, 51, calibrator="none"))
    (forecast,) = finish(server, client, graph_of(workflow, 51, calibrator="taylorseer"))
    assert "f" not in "".join(row["marks"] for row in held[-1]["rows"])
    assert "r" not in "".join(row["marks"] for row in forecast[-1]["rows"])
    assert forecast[-1]["rows"][0]["marks"].count("f") == forecast[-1]["skipped"] > 0


def test_only_the_client_that_queued_is_told(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    with LiveClient(server, "somebody-else") as other:
        finish(server, client, graph_of(workflow, 52))
        assert other.of(EVENT) == [] and other.texts == []


def test_the_workflow_of_the_page_is_named(
    server: Server, client: LiveClient, workflow: Workflow
) -> None:
    """Also when the host does not run the caching node again."""
    for name, seed in (("one", 53), ("two", 54)):
        body = {
            "prompt": graph_of(workflow, seed),
            "client_id": server.client_id,
            "extra_data": {"extra_pnginfo": {"workflow": {"id": name}}},
        }
        prompt = server.post("/prompt", body)["prompt_id"]
        server.wait(prompt)
        client.wait(lambda p=prompt: over(client, p))
        assert {event["workflow"] for event in runs_of(client, prompt)[0]} == {name}

"""``workflows/compare_presets.py`` against a real server: its result, and what it leaves alone."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfyui_environment import ROOT
from comfyui_server import Server, failure_of
from comfyui_workflow import Prompt, find
from demo_measurement import Workflow

pytestmark = pytest.mark.server

SCRIPT = ROOT / "workflows" / "compare_presets.py"
STEPS = 12


def graph_of(workflow: Workflow, seed: int, steps: int = STEPS) -> Prompt:
    """The demo with Performance Mode in the place of its caching node, one branch plain."""
    graph = workflow.filled(workflow.prompts[0], seed, 3.0, steps)
    graph = {key: n for key, n in graph.items() if n["class_type"] != "SaveLatent"}
    inputs = {"model": graph[workflow.apply]["inputs"]["model"], "approximation": "balanced"}
    graph[workflow.apply] = {"class_type": "AccelPerformanceMode", "inputs": inputs}
    return graph


def second_sampler(graph: Prompt, workflow: Workflow) -> Prompt:
    """The accelerated sampler in two halves, each behind a Performance Mode, as Wan 2.2 has it."""
    first = next(key for key in find(graph, "KSampler") if key in workflow.accelerated)
    inputs = graph[first]["inputs"]
    steps = inputs["steps"]
    kept = {
        key: inputs[key]
        for key in ("cfg", "sampler_name", "scheduler", "positive", "negative", "latent_image")
    }
    half = {**kept, "noise_seed": inputs["seed"], "steps": steps}
    high = {"add_noise": "enable", "start_at_step": 0, "end_at_step": steps // 2}
    low = {"add_noise": "disable", "start_at_step": steps // 2, "end_at_step": 1000}
    mode = graph[workflow.apply]
    graph["low mode"] = {"class_type": mode["class_type"], "inputs": dict(mode["inputs"])}
    graph["high"] = advanced({**half, **high, "return_with_leftover_noise": "enable"})
    graph["high"]["inputs"]["model"] = inputs["model"]
    graph[first] = advanced({**half, **low, "return_with_leftover_noise": "disable"})
    graph[first]["inputs"] |= {"model": ["low mode", 0], "latent_image": ["high", 0]}
    return graph


def advanced(inputs: dict[str, Any]) -> dict[str, Any]:
    return {"class_type": "KSamplerAdvanced", "inputs": inputs}


def start(server: Server, graph: Any, folder: Path, *presets: str) -> subprocess.Popen[str]:
    path = folder / "workflow.json"
    path.write_text(json.dumps(graph), encoding="utf-8")
    command = [sys.executable, str(SCRIPT), str(path), "--server", server.url.partition("//")[2]]
    command += ["--output", str(folder / "out"), "--presets", *presets]
    return subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A check that was started in the background hands down that Ctrl+C is ignored.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    out, err = process.communicate(timeout=300)
    return process.returncode, out, err


def picture(server: Server, item: Any) -> np.ndarray:
    return np.asarray(Image.open(server.file(item)))


@pytest.mark.every_host
def test_the_result_is_that_of_the_graph_and_others_are_served(
    server: Server, workflow: Workflow, tmp_path: Path
) -> None:
    graph = graph_of(workflow, 71)
    process = start(server, graph, tmp_path, "fast")
    # Somebody else queues meanwhile; each is served, whole.
    others = [server.submit(graph_of(workflow, 200 + i, 6)) for i in range(3)]
    code, out, err = finish(process)
    assert code == 0, err
    for other in others:
        assert failure_of(server.wait(other)) is None

    result = json.loads((tmp_path / "out" / "presets.json").read_text(encoding="utf-8"))
    off, fast = result["rows"]
    assert [off["preset"], fast["preset"]] == ["off", "fast"]
    assert off["computed"] is None and off["seconds"] > 0
    assert 0 < fast["computed"] < fast["evaluations"] == STEPS
    assert fast["seconds"] < off["seconds"] and fast["speedup"] == off["seconds"] / fast["seconds"]
    assert 15 < fast["psnr"] < 60 and 0.3 < fast["ssim"] < 1 and not fast["identical"]
    assert result["model"]["family"] and result["model"]["steps"] == STEPS
    assert result["environment"]["pack"] == "0.1.0" and result["version"] == 1

    graph[workflow.apply]["inputs"]["approximation"] = "off"
    for row in (off, fast):
        assert [item["type"] for item in row["pictures"]] == ["output"], "no plot of ours counts"
    outputs = server.run(graph)
    saver = next(key for key in find(graph, "SaveImage") if key in workflow.accelerated)
    again = picture(server, outputs[saver]["images"][0])
    assert any(np.array_equal(picture(server, item), again) for item in off["pictures"])

    table = (tmp_path / "out" / "presets.md").read_text(encoding="utf-8")
    assert table.strip() == out.strip() and f"| fast | {fast['seconds']:.2f} s |" in table
    with Image.open(tmp_path / "out" / "presets.png") as drawn:
        assert drawn.width > 2 * 256 and drawn.height > 2 * 256


@pytest.mark.whole
def test_two_samplers_count_together(server: Server, workflow: Workflow, tmp_path: Path) -> None:
    graph = second_sampler(graph_of(workflow, 72, 16), workflow)
    code, _, err = finish(start(server, graph, tmp_path, "balanced"))
    assert code == 0, err
    result = json.loads((tmp_path / "out" / "presets.json").read_text(encoding="utf-8"))
    _, balanced = result["rows"]
    assert balanced["evaluations"] == 16 and balanced["computed"] < 16


def waiting(server: Server) -> list[str]:
    """Ids of the prompts that run or wait."""
    return [item[1] for items in server.get("/queue").values() for item in items]


@pytest.mark.whole
def test_ctrl_c_takes_its_own_run_and_no_other(
    server: Server, workflow: Workflow, tmp_path: Path
) -> None:
    long = server.submit(graph_of(workflow, 73, 60))
    process = start(server, graph_of(workflow, 74), tmp_path, "fast")
    until = time.monotonic() + 60
    while len(waiting(server)) < 2:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    after = server.submit(graph_of(workflow, 75, 6))
    process.send_signal(signal.SIGINT)
    code, out, err = finish(process)
    assert code == 130 and "nothing else was touched" in err and not out
    assert set(waiting(server)) <= {long, after}
    assert failure_of(server.wait(long)) is None and failure_of(server.wait(after)) is None
    assert not (tmp_path / "out").exists()


def test_ctrl_c_stops_the_run_that_goes_on(
    server: Server, workflow: Workflow, tmp_path: Path
) -> None:
    process = start(server, graph_of(workflow, 76, 3000), tmp_path, "fast")
    until = time.monotonic() + 60
    while not server.get("/queue")["queue_running"]:
        assert time.monotonic() < until and process.poll() is None
        time.sleep(0.05)
    (own,) = waiting(server)
    process.send_signal(signal.SIGINT)
    assert finish(process)[0] == 130
    assert "cancelled" in str(failure_of(server.wait(own))) and waiting(server) == []


@pytest.mark.whole
def test_what_cannot_run_gets_a_sentence(
    server: Server, workflow: Workflow, tmp_path: Path
) -> None:
    cases: list[tuple[Any, str]] = [
        ({"nodes": [], "links": []}, "Export (API)"),
        ({"1": {"class_type": "PreviewAny", "inputs": {}}}, "holds no Performance Mode"),
    ]
    refused = graph_of(workflow, 77)
    refused[find(refused, "KSampler")[0]]["inputs"]["sampler_name"] = "no such sampler"
    cases.append((refused, "no such sampler"))
    unseen = {k: n for k, n in graph_of(workflow, 78).items() if n["class_type"] != "SaveImage"}
    for graph, told in [*cases, (unseen, "add Save Image")]:
        code, out, err = finish(start(server, graph, tmp_path, "fast"))
        assert code == 2 and told in err and not out, (told, err)
        assert "Traceback" not in err
    assert waiting(server) == []

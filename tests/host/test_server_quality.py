"""Compare Quality, Profile Sampling and the report's plot in the real server, over HTTP."""

from __future__ import annotations

import gzip
import json
from typing import Any

import numpy as np
import pytest
from PIL import Image

from comfyui_server import Server, ServerError
from comfyui_workflow import find
from demo_figure import psnr
from demo_measurement import Workflow

pytestmark = [pytest.mark.server, pytest.mark.every_host]

STEPS, CFG = 10, 1.0


def pictures(graph: dict[str, Any], workflow: Workflow) -> tuple[list[Any], list[Any]]:
    """Links to the decoded baseline and to the decoded accelerated picture."""
    decoders = find(graph, "DiTAccelDemoDecode")
    baseline = next(key for key in decoders if key not in workflow.accelerated)
    accelerated = next(key for key in decoders if key in workflow.accelerated)
    return [baseline, 0], [accelerated, 0]


def save(images: list[Any], name: str) -> dict[str, Any]:
    return {"class_type": "SaveImage", "inputs": {"images": images, "filename_prefix": name}}


def test_a_graph_compares_profiles_and_plots(server: Server, workflow: Workflow) -> None:
    graph = workflow.filled(workflow.prompts[0], 11, CFG, STEPS)
    baseline, accelerated = pictures(graph, workflow)
    after = next(
        key for key, node in graph.items() if node["inputs"].get("model") == [workflow.apply, 0]
    )
    graph[after]["inputs"]["model"] = ["profile", 0]
    graph["profile"] = {
        "class_type": "AccelProfile",
        "inputs": {"model": [workflow.apply, 0], "evaluations": 4},
    }
    graph["compare"] = {
        "class_type": "AccelCompareQuality",
        "inputs": {"baseline": baseline, "accelerated": accelerated, "min_psnr": 5.0},
    }
    report = find(graph, "AccelReport")[0]
    graph["heat"] = save(["compare", 3], "heat")
    graph["curves"] = save(["compare", 4], "curves")
    graph["plot"] = save([report, 3], "plot")
    outputs = server.run(graph)

    found = json.loads(outputs["compare"]["text"][1])
    assert found["accepted"] and found["count"] == 1
    saved = {
        key: np.asarray(Image.open(server.file(outputs[key]["images"][0])))
        for key in ("heat", "curves", "plot")
    }
    # The scale is fixed, so that near pictures are dark and only what differs much is light.
    assert saved["heat"].shape == (256, 256, 3) and saved["heat"].max() > 60
    assert np.median(saved["heat"]) < 60
    assert saved["plot"].shape[1] >= 880 and saved["curves"].shape[1] >= 720
    files = [
        key
        for key in find(graph, "SaveImage")
        if graph[key]["inputs"]["images"] in (baseline, accelerated)
    ]
    one, other = (np.asarray(Image.open(server.file(outputs[k]["images"][0]))) for k in files)
    rounded_to_8_bit = psnr(one.astype(float), other.astype(float), 255)
    assert found["psnr"] == pytest.approx(rounded_to_8_bit, abs=1)

    told = json.loads(outputs[report]["text"][1])
    assert told["evaluations"] == STEPS and "skipped" in told
    profile = told["profile"]
    assert profile["traced"] == 4 and len(profile["steps"]) == STEPS
    with gzip.open(server.folder / "output" / profile["file"], "rt", encoding="utf-8") as file:
        assert json.load(file)["traceEvents"]
    assert "Profile: traced 4 of 10 evaluations" in outputs[report]["text"][0]


def test_sizes_that_differ_and_names_outside_get_a_sentence(
    server: Server, workflow: Workflow
) -> None:
    graph = workflow.filled(workflow.prompts[0], 11, CFG, STEPS)
    baseline, _ = pictures(graph, workflow)
    graph["other"] = {
        "class_type": "EmptyImage",
        "inputs": {"width": 64, "height": 256, "batch_size": 1, "color": 0},
    }
    graph["compare"] = {
        "class_type": "AccelCompareQuality",
        "inputs": {"baseline": baseline, "accelerated": ["other", 0]},
    }
    with pytest.raises(ServerError, match="width 256 against 64"):
        server.run(graph)
    del graph["compare"]
    graph[find(graph, "KSampler")[0]]["inputs"]["model"] = ["profile", 0]
    graph["profile"] = {
        "class_type": "AccelProfile",
        "inputs": {"model": [workflow.apply, 0], "filename_prefix": "../elsewhere"},
    }
    with pytest.raises(ServerError, match="filename_prefix"):
        server.run(graph)

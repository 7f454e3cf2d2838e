"""The pack in the real server: it loads, shows its nodes, and runs the demo over HTTP."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from typing import Any

import numpy as np
import pytest

import demo_figure
from benchmark_script import benchmark_script
from comfyui_environment import ROOT, Environment
from comfyui_server import Server, ServerError, failure_of
from comfyui_workflow import find, inputs_of
from demo_measurement import APPLY, SETTINGS, WORKFLOW, Setting, Workflow

pytestmark = [pytest.mark.server, pytest.mark.every_host]

MOST_IMPORT_BYTES = 5 * 2**20
STEPS = 14
CFG = 3.0
INPUTS = [
    "model",
    "Fn_compute_blocks",
    "Bn_compute_blocks",
    "max_warmup_steps",
    "residual_diff_threshold",
    "max_continuous_cached_steps",
    "calibrator",
    "taylorseer_order",
    "scm_preset",
    "scm_policy",
    "scm_compute_bins",
    "scm_cache_bins",
    "start_percent",
    "end_percent",
    "residual_device",
    "corrector",
    "config",
]
SOCKETS = ("model", "config")

# Loads a pack as the host does, and says what of it was imported.
LOAD = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
pack, hidden, sys.argv = sys.argv[2], sys.argv[3:], ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
for name in hidden:
    sys.modules[name] = None  # As if it were not installed.
import nodes
loaded = asyncio.run(nodes.load_custom_node(pack))
print(json.dumps({
    "loaded": loaded,
    "nodes": sorted(name for name in nodes.NODE_CLASS_MAPPINGS if name.startswith("Accel")),
    "cache_dit": sys.modules.get("cache_dit") is not None,
}))
"""


def load_alone(environment: Environment, *hidden: str) -> tuple[dict[str, Any], list[str]]:
    """Load the pack in a process of its own; return what came of it, and what was logged of it."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(environment.comfyui), str(ROOT), *hidden],
        capture_output=True,
        text=True,
        cwd=environment.comfyui,
    )
    assert done.returncode == 0, done.stderr
    told = [line for line in done.stderr.splitlines() if "DiT Acceleration" in line]
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout.splitlines()[-1]), told


@pytest.mark.whole
def test_loads_without_importing_cache_dit(environment: Environment) -> None:
    found, told = load_alone(environment)
    assert found["loaded"]
    assert {"AccelApplyCacheDiT", "AccelReport"} <= set(found["nodes"])
    assert not found["cache_dit"]
    assert told == []


def test_loads_with_one_line_where_cache_dit_is_missing(environment: Environment) -> None:
    found, told = load_alone(environment, "cache_dit")
    assert found["loaded"]
    assert {"AccelApplyCacheDiT", "AccelReport"} <= set(found["nodes"])
    assert len(told) == 1
    assert "pip install cache-dit" in told[0]


@pytest.mark.whole
def test_importing_it_takes_little_memory_and_no_other_packages(environment: Environment) -> None:
    found = benchmark_script("pack_import").measured(environment, traced=True)
    assert found["loaded"] and found["modules"] > 100
    assert found["others"] == []
    assert found["bytes"] <= MOST_IMPORT_BYTES


def test_server_lists_the_nodes_and_their_inputs(server: Server) -> None:
    info = server.object_info()
    inputs = dict(inputs_of(info["AccelApplyCacheDiT"]))
    assert list(inputs) == INPUTS
    without = [name for name in INPUTS if "default" not in inputs[name][1]]
    assert without == list(SOCKETS)
    assert info["AccelReport"]["output_node"]


def test_log_of_the_server_has_no_error_of_ours(server: Server, environment: Environment) -> None:
    server.object_info()
    # Prompts of other tests, run before this one by chance, are made to fail.
    log = server.log_text().partition("got prompt")[0]
    for name in environment.packs:
        told = [line for line in log.splitlines() if name in line and "Skipping" not in line]
        assert not [line for line in told if "FAILED" in line or "rror" in line], told
    assert "comfy_entrypoint" not in log


def test_example_workflow_is_offered_as_a_template(
    server: Server, environment: Environment
) -> None:
    templates = server.get("/workflow_templates")
    pack = next(name for name in environment.packs if name in templates)
    assert WORKFLOW.stem in templates[pack]
    served = server.get(f"/api/workflow_templates/{pack}/{WORKFLOW.name}")
    assert served == json.loads(WORKFLOW.read_text(encoding="utf-8"))


def test_example_workflow_fits_the_nodes_of_the_server(server: Server, workflow: Workflow) -> None:
    """Every saved link ends in an input of its type, and every choice is one of the choices."""
    info = server.object_info()
    saved = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    for key, node in workflow.prompt.items():
        specs = dict(inputs_of(info[node["class_type"]]))
        assert set(node["inputs"]) | {"config"} == set(specs) | {"config"}, node["class_type"]
        for name, value in node["inputs"].items():
            kind = specs[name][0]
            if isinstance(value, list):
                source = workflow.prompt[value[0]]["class_type"]
                given = info[source]["output"][value[1]]
                assert kind in (given, "COMFY_MATCHTYPE_V3", "*"), (key, name)
            elif isinstance(kind, list) or kind == "COMBO":
                choices = kind if isinstance(kind, list) else specs[name][1]["options"]
                assert value in choices, (key, name, value)
    assert saved["version"] == 0.4
    assert all(len(group["bounding"]) == 4 for group in saved["groups"])
    inputs = [value for node in workflow.prompt.values() for value in node["inputs"].values()]
    assert len(saved["links"]) == sum(isinstance(value, list) for value in inputs)


def test_demo_workflow_runs_over_http(workflow: Workflow) -> None:
    full, fast = workflow.pair(workflow.prompts[0], 1, CFG, STEPS, SETTINGS["taylorseer"])
    assert full.evaluations == full.computed == STEPS
    assert fast.evaluations == STEPS
    assert 4 <= fast.computed < STEPS
    assert sum(branch["computed"] for branch in fast.branches) == fast.computed
    assert full.latent.shape == fast.latent.shape == (1, 16, 32, 32)
    assert full.picture.shape == fast.picture.shape == (256, 256, 3)
    peak = demo_figure.value_range([full.latent])
    assert 30 < demo_figure.psnr(fast.latent, full.latent, peak) < demo_figure.BEST_PSNR


@pytest.mark.whole
def test_threshold_zero_changes_no_bit(workflow: Workflow) -> None:
    never = Setting(APPLY, {"residual_diff_threshold": 0.0})
    full, same = workflow.pair(workflow.prompts[1], 2, CFG, STEPS, never)
    assert same.computed == same.evaluations == STEPS
    assert np.array_equal(full.latent, same.latent)
    assert np.array_equal(full.picture, same.picture)


def test_cancel_in_mid_run_leaves_no_trace(server: Server, workflow: Workflow) -> None:
    prompt, seed, defaults = workflow.prompts[2], 3, Setting(APPLY)
    _, before = workflow.pair(prompt, seed, CFG, STEPS, defaults)
    long = workflow.filled(prompt, seed + 1, CFG, 10_000)
    baseline = next(key for key in find(long, "KSampler") if key not in workflow.accelerated)
    long[baseline]["inputs"]["steps"] = 1
    running = server.submit(long)
    time.sleep(2.5)  # Well into the accelerated branch.
    server.interrupt()
    failure = failure_of(server.wait(running, timeout=60))
    assert failure is not None and "cancelled at KSampler" in failure
    # Another seed in between, or the host would give the remembered result.
    workflow.pair(prompt, seed + 2, CFG, STEPS, defaults)
    workflow.pair(prompt, seed, CFG, STEPS, Setting(APPLY, {"max_continuous_cached_steps": 1}))
    full, after = workflow.pair(prompt, seed, CFG, STEPS, defaults)
    assert np.array_equal(before.latent, after.latent)
    assert (before.computed, before.evaluations) == (after.computed, after.evaluations)
    assert full.computed == STEPS


@pytest.mark.parametrize(
    ("name", "value"), [("calibrator", "no such"), ("max_warmup_steps", -1), ("start_percent", 1.0)]
)
def test_bad_input_is_refused_by_name(
    server: Server, workflow: Workflow, name: str, value: str | float
) -> None:
    graph = workflow.filled(workflow.prompts[0], 5, CFG, STEPS)
    graph[workflow.apply]["inputs"][name] = value
    with pytest.raises(ServerError, match=name):
        server.run(graph)


def test_a_graph_with_only_performance_mode_runs(server: Server, workflow: Workflow) -> None:
    """Saved with nothing but its first socket and one choice, as on every pinned host."""
    graph = workflow.filled(workflow.prompts[0], 6, CFG, STEPS)
    graph[workflow.apply] = workflow.node_of(SETTINGS["balanced"])
    assert len(graph[workflow.apply]["inputs"]) == 2
    outputs = server.run(graph)
    reports = [
        json.loads(output["text"][1])
        for output in outputs.values()
        if len(output.get("text", ())) == 2
    ]
    found = next(report for report in reports if report.get("technique") == "Performance Mode")
    assert 0 < found["skipped"] < found["evaluations"] == STEPS
    assert "balanced" in found["performance"]["sentence"]

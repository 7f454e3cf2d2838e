"""Settings files and the operator's lock in the real server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from comfyui_environment import ROOT, Environment
from comfyui_server import Server, ServerError
from comfyui_workflow import inputs_of
from demo_measurement import Workflow

pytestmark = [pytest.mark.server, pytest.mark.every_host]

STEPS = 10
EXAMPLES = ROOT / "tests" / "data" / "settings"


@pytest.fixture
def inputs(server: Server) -> Path:
    folder: Path = server.made_folder("input")
    return folder


def with_file(workflow: Workflow, file: str, **settings: Any) -> dict[str, Any]:
    """The demo workflow with a settings file connected and its own values as by default."""
    graph = workflow.filled(workflow.prompts[0], 4, 1.0, STEPS)
    own = graph[workflow.apply]["inputs"]
    own.update(max_warmup_steps=4, residual_diff_threshold=0.24, max_continuous_cached_steps=3)
    own.update(calibrator="none", scm_preset="none", config=["load", 0], **settings)
    graph["load"] = {"class_type": "AccelLoadConfig", "inputs": {"file": file}}
    return graph


def texts_of(server: Server, graph: dict[str, Any]) -> str:
    """Every text that nodes showed when a graph ran."""
    outputs = server.run(graph)
    return "\n".join(str(text) for out in outputs.values() for text in out.get("text", []))


def test_the_list_follows_the_folders(server: Server, inputs: Path) -> None:
    def listed() -> list[str]:
        kind, options = dict(inputs_of(server.object_info()["AccelLoadConfig"]))["file"]
        found: list[str] = kind if isinstance(kind, list) else options["options"]
        return found

    assert "input/config.yaml" not in listed()
    for path in EXAMPLES.iterdir():
        (inputs / path.name).write_bytes(path.read_bytes())
    assert {"input/config.yaml", "input/parallel_config.yaml"} <= set(listed())


def test_the_socket_is_the_last_input_of_the_caching_nodes(server: Server) -> None:
    for kind in ("ApplyCacheDiT", "ApplyTeaCache", "AttentionBackend", "PerformanceMode"):
        name = f"Accel{kind}"
        last, spec = list(inputs_of(server.object_info()[name]))[-1]
        assert (last, spec[0]) == ("config", "ACCEL_CONFIG")


@pytest.mark.parametrize("name", ["config.yaml", "parallel_config.yaml"])
def test_the_examples_of_sglang_run(
    server: Server, workflow: Workflow, inputs: Path, name: str
) -> None:
    (inputs / name).write_bytes((EXAMPLES / name).read_bytes())
    text = texts_of(server, with_file(workflow, f"input/{name}"))
    assert f"warmup_interval 2 (file input/{name}, cache_config)" in text
    assert f"calibrator taylorseer (file input/{name}, cache_config)" in text
    # It means Split Across GPUs, which is not in this graph, so nothing is left to be told.
    assert "ulysses_size" not in text


def test_a_changed_file_is_read_again(server: Server, workflow: Workflow, inputs: Path) -> None:
    path = inputs / "changing.yaml"
    for value in (0.33, 0.44):
        path.write_text(f"cache_config: {{residual_diff_threshold: {value}}}")
        assert f"threshold {value} (file" in texts_of(
            server, with_file(workflow, f"input/{path.name}")
        )


def test_saved_in_the_server_and_loaded_there_again(server: Server, workflow: Workflow) -> None:
    graph = workflow.filled(workflow.prompts[0], 4, 1.0, STEPS)
    graph[workflow.apply]["inputs"].update(max_warmup_steps=2, residual_diff_threshold=0.35)
    graph["save"] = {
        "class_type": "AccelSaveConfig",
        "inputs": {"model": [workflow.apply, 0], "file_name": "saved.yaml", "overwrite": True},
    }
    assert "Saved as user/saved.yaml" in texts_of(server, graph)
    text = texts_of(server, with_file(workflow, "user/saved.yaml"))
    assert "max_warmup_steps 2 (file user/saved.yaml, cache_config)" in text
    assert "residual_diff_threshold 0.35 (file user/saved.yaml, cache_config)" in text


@pytest.mark.parametrize(
    ("file", "content", "part"),
    [
        ("input/../comfyui.db", None, "no settings file"),
        ("../server.log", None, "no settings file"),
        ("/etc/hostname", None, "no settings file"),
        ("input/missing.yaml", None, "no settings file"),
        ("input/bad.yaml", "cache_config: {rdt: 1}", "'rdt'"),
        ("input/bomb.yaml", "a: &a [x]\nb: [*a, *a]", "anchors"),
    ],
)
def test_a_bad_file_is_refused_before_anything_runs(
    server: Server, workflow: Workflow, inputs: Path, file: str, content: str | None, part: str
) -> None:
    if content is not None:
        (inputs / file.partition("/")[2]).write_text(content)
    with pytest.raises(ServerError, match=part) as error:
        server.run(with_file(workflow, file))
    assert "Traceback" not in str(error.value)


@pytest.fixture
def locked_server(
    environment: Environment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Server]:
    """A server whose operator locks what changes pictures, and sets a default."""
    monkeypatch.setenv("DIT_ACCEL_LOCK_LOSSY", "1")
    with Server(environment, "cpu", tmp_path / "locked") as running:
        yield running


@pytest.mark.whole
def test_a_locked_server_runs_the_workflow_unaccelerated(locked_server: Server) -> None:
    workflow = Workflow(locked_server)
    graph = workflow.filled(workflow.prompts[0], 4, 1.0, STEPS)
    text = texts_of(locked_server, graph)
    assert "operator of this server has switched off" in text

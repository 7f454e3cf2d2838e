"""Runs scenarios of this folder in a real browser against the real server."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from comfyui_server import Server
from demo_measurement import WORKFLOW

HERE = Path(__file__).parent
SMOKE = ("test_live_report", "test_search", "test_types", "test_web_modules", "test_workflows")
"""What the quick check runs: a page takes ten seconds of two cores to load, and most scenarios open
one of their own. A job of its own runs all of them on a pull request."""
SECONDS = 300

Scenario = Callable[..., Any]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.parent == HERE and item.path.stem not in SMOKE:
            item.add_marker(pytest.mark.whole)


def require(variable: str) -> str:
    """What tests/run.py found, or a skip that says why it found nothing."""
    value = os.environ.get(variable)
    if not value:
        reason = os.environ.get("DIT_ACCEL_NO_BROWSER") or "run them with: python3 tests/run.py"
        pytest.skip(f"no browser tests: {reason}")
    return value


@pytest.fixture(scope="session")
def packages() -> Path:
    """The folder that holds ``node_modules``."""
    return Path(require("DIT_ACCEL_BROWSER"))


@pytest.fixture(scope="session")
def node() -> str:
    """The interpreter of JavaScript."""
    return require("DIT_ACCEL_NODE")


@pytest.fixture(scope="session")
def scenario(node: str, packages: Path, request: pytest.FixtureRequest) -> Scenario:
    """Runs one of the ``.mjs`` files with options; returns what it printed last, as JSON."""
    server: Server = request.getfixturevalue("server")

    def run(name: str, /, **options: Any) -> Any:
        done = subprocess.run(
            [node, str(HERE / f"{name}.mjs"), server.url, json.dumps(options)],
            capture_output=True,
            text=True,
            timeout=SECONDS,
        )
        assert done.returncode == 0, f"{done.stderr}\n{done.stdout}\n{server.log_tail()}"
        return json.loads(done.stdout.splitlines()[-1])

    return run


@pytest.fixture(scope="session")
def on_the_demo(scenario: Scenario, tmp_path_factory: pytest.TempPathFactory) -> Scenario:
    """Runs a scenario with the demo's workflow, in one of ``looks``, with a folder for pictures."""
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))

    def run(name: str, look: tuple[bool, str], /, **options: Any) -> Any:
        given = os.environ.get("DIT_ACCEL_SCREENSHOTS")
        folder = Path(given or tmp_path_factory.mktemp("screenshots"))
        folder.mkdir(parents=True, exist_ok=True)
        vue, theme = look
        where = {"workflow": workflow, "folder": str(folder)}
        return scenario(name, vue=vue, theme=theme, **where, **options)

    return run

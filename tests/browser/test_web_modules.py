"""The parts of the panel that only compute, run by Node.js alone."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import pytest

from comfyui_environment import ROOT

pytestmark = pytest.mark.browser


def call(node: str, folder: Path, module: str, function: str, *arguments: Any) -> Any:
    """The result of one function of a module of ``web/live``."""
    source = (ROOT / "web" / "live" / f"{module}.js").read_text(encoding="utf-8")
    (folder / "module.mjs").write_text(source, encoding="utf-8")
    script = (
        f'import {{ {function} }} from "./module.mjs";'
        f"console.log(JSON.stringify({function}(...{json.dumps(arguments)})));"
    )
    (folder / "main.mjs").write_text(script, encoding="utf-8")
    done = subprocess.run([node, str(folder / "main.mjs")], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    ("steps", "of", "outcome", "left"),
    [
        pytest.param([0], 4, "running", 3, id="the first of four"),
        pytest.param([0, 1, 2], 28, "running", 25, id="one evaluation a step"),
        pytest.param([0, 0, 1, 1, 2], 4, "running", 3, id="heun in mid-step"),
        pytest.param([0, 0, 1, 1, 2, 2], 4, "running", 2, id="heun between steps"),
        pytest.param([3, 4], 10, "running", 5, id="a branch that began late"),
        pytest.param([0, 0, 1, 1, 2, 2, 3], 4, "finished", 0, id="heun's last step has one"),
        pytest.param([0, 1, 2], 10, "interrupted", 7, id="stopped"),
    ],
)
def test_cells_still_to_come(
    node: str, tmp_path: Path, steps: list[int], of: int, outcome: str, left: int
) -> None:
    row = {"name": "cond", "marks": "c" * len(steps), "steps": steps, "reasons": []}
    progress = {"steps": of, "outcome": outcome}
    assert call(node, tmp_path, "strip", "stillToCome", row, progress) == left


@pytest.mark.parametrize(
    ("function", "value", "text"),
    [
        ("duration", 0.043, "0.043 s"),
        ("duration", 59.6, "60 s"),
        ("duration", 119.7, "2 min 0 s"),
        ("duration", 3725, "62 min 5 s"),
        ("bytes", 512 * 1024, "0.50 MiB"),
        ("bytes", 340 * 2**20, "340 MiB"),
        ("bytes", 3 * 2**30, "3.00 GiB"),
    ],
)
def test_quantities_in_words(
    node: str, tmp_path: Path, function: str, value: float, text: str
) -> None:
    assert call(node, tmp_path, "words", function, value) == text

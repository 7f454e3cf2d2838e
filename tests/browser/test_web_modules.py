"""The parts of the panel that only compute, run by Node.js alone."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from comfyui_environment import ROOT

pytestmark = pytest.mark.browser


def call(node: str, folder: Path, module: str, function: str, *arguments: Any) -> Any:
    """The result of one function of a module of ``web/live``."""
    shutil.copytree(ROOT / "web" / "live", folder / "live")
    (folder / "live" / "package.json").write_text('{"type": "module"}', encoding="utf-8")
    script = (
        f'import {{ {function} }} from "./live/{module}.js";'
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


ROW = {"preset": "fast", "computed": 9.4, "steps": 28, "speedup": 2.7}


@pytest.mark.parametrize(
    ("row", "measured", "words"),
    [
        (ROW, {}, ["fast", "9 of 28", "2.70×", "–"]),
        (ROW, {"fast": 4.0}, ["fast", "9 of 28", "2.70×", "4.0 s"]),
        (ROW, {"fast": 4.0, "off": 10.0}, ["fast", "9 of 28", "2.70×", "4.0 s (2.50×)"]),
        (ROW | {"computed": 28, "speedup": 1.0}, {}, ["fast", "all 28", "1×", "–"]),
        (ROW | {"preset": "off"}, {"off": 75.0}, ["off", "9 of 28", "2.70×", "75 s"]),
    ],
)
def test_a_preset_in_words(
    node: str, tmp_path: Path, row: dict[str, Any], measured: dict[str, float], words: list[str]
) -> None:
    assert call(node, tmp_path, "preset_rows", "cells", row, measured) == words


def test_measured_times_of_the_same_steps_are_kept(node: str, tmp_path: Path) -> None:
    earlier = {"steps": 28, "measured": {"off": 10.0, "fast": 4.0}}
    run = {"steps": 28, "approximation": "fast", "seconds": 3.5}
    folders = [tmp_path / name for name in "abc"]
    for folder in folders:
        folder.mkdir()
    found = [
        call(node, folder, "preset_rows", "together", known, run)["measured"]
        for folder, known in zip(folders, (earlier, {**earlier, "steps": 20}, None), strict=True)
    ]
    assert found == [{"off": 10.0, "fast": 3.5}, {"fast": 3.5}, {"fast": 3.5}]

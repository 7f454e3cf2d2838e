"""The pack's JavaScript against its types."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from comfyui_environment import ROOT

pytestmark = pytest.mark.browser


def check(node: str, packages: Path, folder: Path) -> str:
    """What the type checker finds wrong with a copy of ``web``."""
    tsc = packages / "node_modules" / "typescript" / "bin" / "tsc"
    command = [node, str(tsc), "--project", str(folder / "jsconfig.json"), "--pretty", "false"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert (done.returncode == 0) == (not done.stdout)
    return done.stdout


def test_javascript_has_no_type_error(node: str, packages: Path) -> None:
    assert check(node, packages, ROOT / "web") == ""


@pytest.mark.whole
def test_the_check_finds_a_type_error(node: str, packages: Path, tmp_path: Path) -> None:
    shutil.copytree(ROOT / "web", tmp_path / "web")
    words = tmp_path / "web" / "live" / "words.js"
    words.write_text(words.read_text(encoding="utf-8") + 'duration("a while");\n')
    assert "words.js" in check(node, packages, tmp_path / "web")

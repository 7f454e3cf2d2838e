"""Importing cache-dit among packages that are broken, each time in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from comfyui_environment import ROOT

SCRIPT = """
import importlib.util, sys

path = sys.argv[1]
spec = importlib.util.spec_from_file_location(
    "pack", path + "/__init__.py", submodule_search_locations=[path]
)
sys.modules["pack"] = importlib.util.module_from_spec(spec)
from pack.acceleration.cache_dit import library
from pack.acceleration.errors import AccelerationError

try:
    print(library.load()[0].__name__)
except AccelerationError as error:
    print(error)
"""


def imported_beside(folder: Path, package: str, module: str) -> str:
    """What comes of importing cache-dit beside a package whose module cannot be imported."""
    inside = folder / package
    inside.mkdir()
    (inside / "__init__.py").touch()
    (inside / f"{module}.py").write_text('raise RuntimeError("made for another torch\\nmore")\n')
    described = folder / f"{package}-0.0.35.dist-info"
    described.mkdir()
    (described / "METADATA").write_text(
        f"Metadata-Version: 2.1\nName: {package}\nVersion: 0.0.35\n"
    )
    finished = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(ROOT)],
        env={**os.environ, "PYTHONPATH": f"{folder}{os.pathsep}{os.environ.get('PYTHONPATH', '')}"},
        capture_output=True,
        text=True,
        check=True,
    )
    return finished.stdout.strip().splitlines()[-1]


@pytest.mark.whole
def test_a_broken_xformers_is_done_without(tmp_path: Path) -> None:
    assert imported_beside(tmp_path, "xformers", "ops") == "cache_dit"


def test_what_else_is_broken_is_named_in_one_sentence(tmp_path: Path) -> None:
    said = imported_beside(tmp_path, "diffusers", "__init__")
    assert "cannot be imported (RuntimeError: made for another torch)" in said
    assert "python -m pip install" in said

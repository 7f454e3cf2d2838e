"""The published archive is whole: unpacked alone, the host loads every node from it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import archive
from comfyui_environment import ROOT, Environment

LOAD = """
import asyncio, json, sys
sys.path.insert(0, sys.argv[1])
pack, sys.argv = sys.argv[2], ["main.py", "--cpu"]
import comfy.options
comfy.options.enable_args_parsing()
import nodes
assert asyncio.run(nodes.load_custom_node(pack))
print(json.dumps([name for name in nodes.NODE_CLASS_MAPPINGS if name.startswith("Accel")]))
"""


def load(environment: Environment, pack: Path) -> list[str]:
    """The ids of our nodes after loading a copy of the pack in a process of its own."""
    done = subprocess.run(
        [sys.executable, "-c", LOAD, str(environment.comfyui), str(pack)],
        capture_output=True,
        text=True,
        cwd=environment.comfyui,
    )
    assert done.returncode == 0, done.stderr
    found: list[str] = json.loads(done.stdout.splitlines()[-1])
    return found


def git(*arguments: str, cwd: Path) -> None:
    subprocess.run(["git", *arguments], cwd=cwd, check=True, capture_output=True)


def test_what_is_packed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("old.py", "new.py", "ignored.py", "tests/old.py", "tests/new.py"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / ".gitignore").write_text("ignored.py\n")
    (tmp_path / ".comfyignore").write_text("tests/\n")
    git("init", cwd=tmp_path)
    git("add", "old.py", "tests/old.py", ".gitignore", ".comfyignore", cwd=tmp_path)
    monkeypatch.setattr(archive, "ROOT", tmp_path)
    names = [".comfyignore", ".gitignore", "new.py", "old.py"]
    assert archive.files() == [Path(name) for name in names]


@pytest.mark.whole
def test_unpacked_archive_loads_with_all_nodes(environment: Environment, tmp_path: Path) -> None:
    files = archive.files()
    if not files:
        pytest.skip("not a git checkout")
    pack = tmp_path / "dit-acceleration"
    for file in files:
        target = pack / file
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / file, target)
    assert load(environment, pack) == load(environment, ROOT) != []

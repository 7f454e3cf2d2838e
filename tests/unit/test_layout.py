"""CONTRIBUTING's map of the rooms is true, and no room imports upwards."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from comfyui_environment import ROOT

ENGINE = ROOT / "acceleration"
ROW = re.compile(r"^\| (\d) \| `(?:acceleration/)?(\w+)(?:/|\.py)` \| (.+) \|$", re.MULTILINE)
LONGEST = 400
"""Lines of a file."""


def floors() -> dict[str, int]:
    rows = ROW.findall((ROOT / "CONTRIBUTING.md").read_text())
    found = {name: int(floor) for floor, name, _ in rows}
    assert len(found) == len(rows), "a room stands there twice"
    return found


def rooms() -> set[str]:
    """Packages and modules of the engine."""
    entries = [p for p in ENGINE.iterdir() if p.is_dir() or p.suffix == ".py"]
    return {p.stem for p in entries} - {"__init__", "__pycache__"}


def imports(path: Path) -> Iterator[str]:
    """Rooms of the engine that a module imports."""
    package = path.relative_to(ROOT).parent.parts
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = (*package[: len(package) - node.level + 1], *(node.module or "").split("."))
            for alias in node.names:
                whole = [part for part in (*base, alias.name) if part]
                if whole[0] == "acceleration" and whole[1] in rooms():
                    yield whole[1]


def test_the_map_has_every_room() -> None:
    assert set(floors()) == rooms() | {"nodes"}


def test_a_floor_imports_only_below() -> None:
    level, wrong, seen = floors(), [], 0
    for folder in (ENGINE, ROOT / "nodes"):
        for path in folder.rglob("*.py"):
            room = path.relative_to(folder).parts[0].removesuffix(".py")
            own = level["nodes"] if folder.name == "nodes" else level.get(room, 0)
            for other in imports(path):
                seen += 1
                if other != room and level[other] >= own:
                    wrong.append(f"{path.relative_to(ROOT)} imports {other}")
    assert not wrong
    assert seen > 100


def test_only_one_room_imports_each_foreign_package() -> None:
    """ComfyUI behind `host`, cache-dit behind `cache_dit`, Ray behind `cluster`."""
    behind = {"comfy": "host", "folder_paths": "host", "nodes": "host", "cache_dit": "cache_dit"}
    behind |= {"ray": "cluster"}
    for path in ENGINE.rglob("*.py"):
        room = path.relative_to(ENGINE).parts[0]
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            if isinstance(node, ast.ImportFrom) and not node.level:
                names = [node.module or ""]
            for name in names:
                owner = behind.get(name.split(".")[0])
                assert owner in (None, room), f"{path}: {name}"


def test_files_are_short() -> None:
    long = {
        p.name: n for p in ENGINE.rglob("*.py") if (n := len(p.read_text().splitlines())) > LONGEST
    }
    assert not long

"""Writes the table of model families into the README from what the engine knows of them.

Run it with the Python of the test environment: ``python benchmarks/families_table.py``.
"""

from __future__ import annotations

import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PACK = "dit_acceleration_pack"
MARKERS = re.compile(r"(<!-- table:families -->\n).*?(<!-- /table:families -->)", re.DOTALL)


def load_families() -> tuple[Any, ...]:
    """The families, with the pack loaded as a package of any name, as the host does."""
    if PACK not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        assert spec is not None and spec.loader is not None
        sys.modules[PACK] = importlib.util.module_from_spec(spec)
    module = importlib.import_module(f"{PACK}.acceleration.families")
    found: tuple[Any, ...] = module.FAMILIES
    return found


def line(family: Any) -> str:
    """One row of the table."""
    fits = ", ".join(f"{fit.name} ({fit.threshold:g})" for fit in family.fits)
    notes = []
    if family.refused:
        notes.append(f"runs uncached: {family.refused}")
    if family.last_blocks_need_all:
        notes.append("Bn must be 0")
    if family.is_video:
        notes.append("no dmd")
    stacks = ", ".join(f"`{stack.path}`" for stack in family.stacks)
    tea_cache = "–" if family.refused else fits or "raw or calibrated"
    return f"| {family.name} | {family.models} | {stacks} | {tea_cache} | {'; '.join(notes)} |"


def table() -> str:
    """The whole table as markdown."""
    head = "| family | models | blocks | TeaCache coefficients (threshold) | notes |"
    rows = sorted(load_families(), key=lambda family: family.name.lower())
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *map(line, rows)])


def renew(text: str) -> str:
    """A README with the table as it should be."""
    return MARKERS.sub(lambda found: f"{found[1]}{table()}\n{found[2]}", text)


if __name__ == "__main__":
    README.write_text(renew(README.read_text(encoding="utf-8")), encoding="utf-8")

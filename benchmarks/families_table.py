"""Writes what the engine knows of the model families into the README: two tables.

``families`` lists every family, ``presets`` the Cache-DiT settings published for some of them.

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
    if family.in_place:
        notes.append("in place")
    if family.last_blocks_need_all:
        notes.append("Bn must be 0")
    stacks = ", ".join(f"`{stack.path}`" for stack in family.stacks)
    tea_cache = "–" if family.refused else fits or "raw or calibrated"
    return f"| {family.name} | {family.models} | {stacks} | {tea_cache} | {'; '.join(notes)} |"


def by_name() -> list[Any]:
    """The families in the order of the tables."""
    return sorted(load_families(), key=lambda family: family.name.lower())


def families() -> str:
    """The table of families as markdown."""
    head = "| family | models | blocks | TeaCache coefficients (threshold) | notes |"
    return "\n".join([head, "| --- | --- | --- | --- | --- |", *map(line, by_name())])


def presets() -> str:
    """The table of published Cache-DiT settings as markdown, each preset once."""
    rows: list[str] = []
    for preset in (preset for family in by_name() for preset in family.cache_dit):
        values = ", ".join(f"`{name}` {value}" for name, value in preset.settings.items())
        row = f"| {preset.models} | {values} | {preset.source} |"
        if values and row not in rows:
            rows.append(row)
    return "\n".join(["| model | settings | published in |", "| --- | --- | --- |", *rows])


TABLES = {"families": families, "presets": presets}


def renew(text: str) -> str:
    """A README with the tables as they should be."""
    for name, table in TABLES.items():
        markers = re.compile(rf"(<!-- table:{name} -->\n).*?(<!-- /table:{name} -->)", re.DOTALL)
        content = table()
        text = markers.sub(lambda found, new=content: f"{found[1]}{new}\n{found[2]}", text)
    return text


if __name__ == "__main__":
    README.write_text(renew(README.read_text(encoding="utf-8")), encoding="utf-8")

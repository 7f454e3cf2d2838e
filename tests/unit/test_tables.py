"""The tables of the documentation are those of the committed results and of the engine."""

from __future__ import annotations

import re
from pathlib import Path
from types import ModuleType

import pytest

from benchmark_script import benchmark_script
from comfyui_environment import ROOT

# Where each table stands.
PLACES = {
    "README.md": {"presets"},
    "web/docs/AccelPerformanceMode.md": {"presets-list"},
    "docs/models.md": {"families", "published"},
    "docs/settings.md": {"environment"},
    "docs/several_gpus.md": {"parallel"},
    "benchmarks/README.md": {
        "full-size", "attention", "performance", "target", "quality", "tea-cache", "video",
        "memory", "overhead", "attention-overhead", "profiler", "quantize", "plans",
        "plans-elsewhere", "few-steps", "schedules", "progressive", "costs",
    },
}  # fmt: skip


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return benchmark_script("tables/write_tables")


def test_tables_are_up_to_date(tables: ModuleType) -> None:
    assert not tables.outdated(), "run: python3 benchmarks/tables/write_tables.py"


def test_every_table_is_where_it_belongs(tables: ModuleType) -> None:
    found = {}
    for path in tables.FILES:
        text = path.read_text(encoding="utf-8")
        if names := re.findall(r"<!-- table:([\w-]+) -->\n\S", text):
            found[path.relative_to(ROOT).as_posix()] = set(names)
    assert found == PLACES
    assert set().union(*found.values()) == set(tables.TABLES)


def test_text_between_markers_is_replaced(tables: ModuleType) -> None:
    text = "a\n<!-- table:x -->\nold\n<!-- /table:x -->\nb\n"
    new = tables.filled(text, {"x": lambda: "| new |"})
    assert new == "a\n<!-- table:x -->\n| new |\n<!-- /table:x -->\nb\n"
    assert tables.filled(new, {"x": lambda: "| new |"}) == new


def test_a_stale_table_is_found(tables: ModuleType, tmp_path: Path) -> None:
    fresh = tmp_path / "README.md"
    fresh.write_text(tables.filled("<!-- table:quality --><!-- /table:quality -->"))
    assert not tables.outdated([fresh])
    digit = next(c for c in fresh.read_text() if c.isdigit())
    fresh.write_text(fresh.read_text().replace(digit, str((int(digit) + 1) % 10), 1))
    assert set(tables.outdated([fresh])) == {fresh}


@pytest.mark.parametrize("text", ["<!-- table:unknown -->", "<!-- table:x --> left open"])
def test_wrong_markers_are_refused(tables: ModuleType, text: str) -> None:
    with pytest.raises(ValueError, match="table:"):
        tables.filled(text, {"x": lambda: ""})

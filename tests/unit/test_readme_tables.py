"""The tables of the READMEs are those of the committed results."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

import pytest

from benchmark_script import benchmark_script
from comfyui_environment import ROOT

README = ROOT / "README.md"


@pytest.fixture(scope="module")
def tables() -> ModuleType:
    return benchmark_script("readme_table")


@pytest.mark.parametrize("path", [README, ROOT / "benchmarks" / "README.md"], ids=str)
def test_tables_are_up_to_date(tables: ModuleType, path: Path) -> None:
    assert not tables.outdated([path]), "run: python3 benchmarks/readme_table.py"


@pytest.mark.parametrize(
    ("path", "names"),
    [
        (README, ("quality", "video", "overhead", "full-size-brief", "attention-brief")),
        (ROOT / "benchmarks" / "README.md", ("quality-full", "full-size", "attention")),
    ],
    ids=str,
)
def test_tables_are_there(path: Path, names: tuple[str, ...]) -> None:
    if not path.exists():
        return
    text = path.read_text(encoding="utf-8")
    for name in names:
        begin, end = text.find(f"<!-- table:{name} -->"), text.find(f"<!-- /table:{name} -->")
        assert 0 <= begin < end, name
        assert "|" in text[begin:end]


def test_text_between_markers_is_replaced(tables: ModuleType) -> None:
    text = "a\n<!-- table:x -->\nold\n<!-- /table:x -->\nb\n"
    new = tables.filled(text, {"x": lambda: "| new |"})
    assert new == "a\n<!-- table:x -->\n| new |\n<!-- /table:x -->\nb\n"
    assert tables.filled(new, {"x": lambda: "| new |"}) == new


def test_a_stale_table_is_found(tables: ModuleType, tmp_path: Path) -> None:
    fresh = tmp_path / "README.md"
    fresh.write_text(tables.filled("<!-- table:quality --><!-- /table:quality -->"))
    assert tables.outdated([fresh]) == []
    digit = next(c for c in fresh.read_text() if c.isdigit())
    fresh.write_text(fresh.read_text().replace(digit, str((int(digit) + 1) % 10), 1))
    assert tables.outdated([fresh]) == [fresh]


@pytest.mark.parametrize("text", ["<!-- table:unknown -->", "<!-- table:x --> left open"])
def test_wrong_markers_are_refused(tables: ModuleType, text: str) -> None:
    with pytest.raises(ValueError, match="table:"):
        tables.filled(text, {"x": lambda: ""})

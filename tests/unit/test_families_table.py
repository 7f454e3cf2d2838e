"""The README's table of families is the one that the engine's data gives."""

from __future__ import annotations

import importlib.util
from typing import Any

from comfyui_environment import ROOT


def script() -> Any:
    path = ROOT / "benchmarks" / "families_table.py"
    spec = importlib.util.spec_from_file_location("families_table", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_lists_the_families_as_they_are() -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    assert script().renew(text) == text, "run: python benchmarks/families_table.py"
    assert "| FLUX |" in text and "| Wan |" in text


def test_every_family_has_a_file_a_class_and_a_stack() -> None:
    families = script().load_families()
    names = [family.name for family in families]
    assert len(set(names)) == len(names)
    classes = [name for family in families for name in family.classes]
    assert len(set(classes)) == len(classes)
    assert all(family.stacks and family.models for family in families)

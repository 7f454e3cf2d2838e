"""Tables of what the engine knows: model families, published settings, environment variables."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from typing import Any

from harness import PACK, ROOT
from table_markdown import markdown


def engine(name: str) -> Any:
    """A module of the engine, with the pack loaded as a package of any name, as the host does."""
    if PACK not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        assert spec is not None and spec.loader is not None
        sys.modules[PACK] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{PACK}.acceleration.{name}")


def line(family: Any) -> list[str]:
    """One family's row."""
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
    return [family.name, family.models, stacks, tea_cache, "; ".join(notes)]


def by_name() -> list[Any]:
    """The families in the order of the tables."""
    return sorted(engine("families").FAMILIES, key=lambda family: family.name.lower())


def families() -> str:
    """Every family that is known."""
    columns = ["family", "models", "blocks", "TeaCache coefficients (threshold)", "notes"]
    return markdown(columns, [line(family) for family in by_name()], texts=5)


def published() -> str:
    """The Cache-DiT settings published for some families, each once."""
    rows: list[list[str]] = []
    for preset in (preset for family in by_name() for preset in family.cache_dit):
        values = ", ".join(f"`{name}` {value}" for name, value in preset.settings.items())
        row = [preset.models, values, preset.source]
        if values and row not in rows:
            rows.append(row)
    return markdown(["model", "settings", "published in"], rows, texts=3)


def environment() -> str:
    """Every variable with the key of a settings file that it sets, and its values."""
    known, settings_of = engine("settings.environment"), engine("setting").settings_of
    rows = []
    for section in engine("settings.sections").SECTIONS.values():
        defaults = section.defaults() | dict.fromkeys(section.switches, False)
        values = {name: setting.values for name, _, setting in settings_of(section.settings)}
        for variable, key in known.variables(section).items():
            default = defaults[key]
            shown = str(default).lower() if isinstance(default, bool) else str(default) or "empty"
            allowed = values.get(key) or ("true, false" if isinstance(default, bool) else "text")
            row = [f"`{variable}`", f"`{key}`", f"`{section.key}`", shown, allowed]
            rows.append(row)
    return markdown(["variable", "key", "section", "default", "values"], rows, texts=5)

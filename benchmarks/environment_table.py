"""Writes the table of environment variables into the README, from the engine's own data.

Run it with the Python of the test environment: ``python benchmarks/environment_table.py``.
"""

from __future__ import annotations

import importlib
import importlib.util
import re
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
README = ROOT / "README.md"
PACK = "dit_acceleration_pack"
MARKERS = re.compile(r"(<!-- table:environment -->\n).*?(<!-- /table:environment -->)", re.DOTALL)


def engine(name: str) -> Any:
    """A module of the engine, with the pack loaded as a package of any name, as the host does."""
    if PACK not in sys.modules:
        spec = importlib.util.spec_from_file_location(
            PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)]
        )
        assert spec is not None and spec.loader is not None
        sys.modules[PACK] = importlib.util.module_from_spec(spec)
    return importlib.import_module(f"{PACK}.acceleration.{name}")


def table() -> str:
    """Every variable with the key of a settings file that it sets, as markdown."""
    environment, sections = engine("settings.environment"), engine("settings.sections").SECTIONS
    settings_of = engine("setting").settings_of
    lines = ["| variable | key | section | default | values |", "| --- | --- | --- | --- | --- |"]
    for section in sections.values():
        defaults = section.defaults() | dict.fromkeys(section.switches, False)
        values = {name: known.values for name, _, known in settings_of(section.settings)}
        for variable, key in environment.variables(section).items():
            default = defaults[key]
            shown = str(default).lower() if isinstance(default, bool) else str(default) or "empty"
            allowed = values.get(key) or ("true, false" if isinstance(default, bool) else "text")
            lines.append(f"| `{variable}` | `{key}` | `{section.key}` | {shown} | {allowed} |")
    return "\n".join(lines)


def renew(text: str) -> str:
    """A README with the table as it should be."""
    content = table()
    return MARKERS.sub(lambda found: f"{found[1]}{content}\n{found[2]}", text)


if __name__ == "__main__":
    README.write_text(renew(README.read_text(encoding="utf-8")), encoding="utf-8")

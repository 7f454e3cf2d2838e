"""What every table of the documentation is made of."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from harness import RESULTS

NONE = "–"

Row = Mapping[str, Any]
Rows = Sequence[Row]


def markdown(columns: Sequence[str], rows: Sequence[Sequence[str]], texts: int = 1) -> str:
    """A markdown table whose first columns are texts; the numbers after them go to the right."""
    rule = ["---"] * texts + ["---:"] * (len(columns) - texts)
    return "\n".join("| " + " | ".join(line) + " |" for line in [columns, rule, *rows])


def load(name: str) -> dict[str, Any]:
    """One file of results."""
    data: dict[str, Any] = json.loads((RESULTS / f"{name}.json").read_text(encoding="utf-8"))
    return data


def machine(data: Mapping[str, Any]) -> str:
    """Where and with what figures were measured."""
    e = data["environment"]
    device = e["processor"] if e["device"] == "CPU" else e["device"]
    threads = f"{e['threads']} thread{'' if e['threads'] == 1 else 's'}"
    return (
        f"Measured on {e['date']}: {device}, {threads}, {e['system']}, ComfyUI "
        f"{e['comfyui']}, torch {e['torch']}, cache-dit {e['cache_dit']}."
    )


def packages(data: Mapping[str, Any]) -> str:
    """The attention packages that were there, as a sentence with a space before it, or nothing."""
    found = data["environment"].get("attention_packages", {})
    names = ", ".join(f"{name} {version}" for name, version in found.items())
    return f" Installed: {names}." if names else ""


def each_cfg(rows: Rows, key: str, form: str) -> str:
    """A figure for every guidance scale, such as ``"40.8 / 39.2"``; a dash where none is known."""
    found = [format(row[key], form) for row in rows if key in row]
    return " / ".join(found) or NONE

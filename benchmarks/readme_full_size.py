"""Tables of the speed on a GPU in real size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from readme_markdown import NONE, Row, Rows, load, machine, markdown

BRIEF = {
    "nothing skipped": "everything attached, nothing skipped",
    "quality": "`quality`",
    "balanced": "`balanced`",
    "fast": "`fast`",
    "ultra": "`ultra`",
    "speed": "mode `speed`",
    "speed, compiled": "mode `speed`, blocks compiled",
    "speed, compiled, balanced": "mode `speed`, blocks compiled, `balanced`",
}
"""Rows of the short table, and what they are called there."""
RANDOM = (
    "Real architectures and sizes, random weights: time and memory are real, pictures are not, so "
    "a PSNR here only says whether the latent is that of the plain run, nothing of picture "
    "quality, and how much thresholds skip is not what they skip on a trained model."
)


def figure(row: Row, key: str, form: str, unit: float = 1.0) -> str:
    """One number of a row, or a dash."""
    value = row.get(key)
    return NONE if value is None else format(value / unit, form)


def sampled_as(rows: Rows) -> str:
    """How the model of some rows is sampled."""
    plain = next((row for row in rows if row["setting"] == "plain"), None)
    if plain is None:
        return ""
    return f", cfg {plain['cfg']:g}, {plain['steps']} steps"


def by_model(rows: Rows) -> dict[str, list[Row]]:
    """Rows by their model, in the order of the file."""
    found: dict[str, list[Row]] = {}
    for row in rows:
        found.setdefault(row["model"], []).append(row)
    return found


def likeness(row: Row) -> str:
    """Whether the latent is that of the plain run."""
    if "identical" not in row:
        return NONE
    return "identical" if row["identical"] else f"{figure(row, 'psnr', '.1f')} dB"


def line(row: Row) -> list[str]:
    """A timed row."""
    seconds = figure(row, "seconds", ".2f")
    if "compile_seconds" in row:
        seconds += f" (compiling {row['compile_seconds']:.0f})"
    return [
        row["setting"],
        f"{row['computed']} of {row['evaluations']}",
        seconds,
        figure(row, "speedup", ".2f"),
        figure(row, "ms_computed", ".1f"),
        figure(row, "ms_skipped", ".1f"),
        figure(row, "peak_bytes", ".1f", 2**30),
        figure(row, "residual_bytes", ".0f", 2**20),
        likeness(row),
    ]


def failures(rows: Rows) -> str:
    """What could not be measured, and why."""
    found = [f"{row['setting']} ({row['reason']})" for row in rows if "reason" in row]
    return f"\n\nNot measured: {'; '.join(found)}." if found else ""


def waits(rows: Rows) -> str:
    """How often the processor waits for the device, plain and cached."""
    found = next((r for r in rows if r["setting"] == "synchronisations" and "plain" in r), None)
    if found is None:
        return ""
    variants = [(name, counts) for name, counts in found.items() if isinstance(counts, Mapping)]
    kinds = [key for key in variants[0][1] if key not in ("evaluations", "computed")]
    lines = [
        [
            f"{name}, {counts['computed']} of {counts['evaluations']} computed",
            *(f"{counts[kind]:g}" for kind in kinds),
        ]
        for name, counts in variants
    ]
    return f"\n\nEvents an evaluation:\n\n{markdown(['run', *kinds], lines)}"


def part(name: str, rows: Rows) -> str:
    """One model's table."""
    columns = ["setting", "computed", "seconds", "speed-up", "ms computed", "ms skipped"]
    columns += ["peak GiB", "residuals MiB", "latent"]
    lines = [line(row) for row in rows if "seconds" in row]
    head = f"**{name}**{sampled_as(rows)}"
    return f"{head}\n\n{markdown(columns, lines)}{waits(rows)}{failures(rows)}"


def caption(data: Mapping[str, Any]) -> str:
    """What both tables have in common."""
    how = f"euler, {data['dtype']}, {data['memory_manager']} memory manager"
    return f"{RANDOM} {how}. {machine(data)}"


def full_size() -> str:
    """Every row of every model."""
    data = load("full_size")
    parts = [part(name, rows) for name, rows in by_model(data["rows"]).items()]
    said = (
        "Speed-up is against the plain run; in rows of fewer steps it is that of an evaluation. "
        "“ms” is the median time of an evaluation on the device, the first one left out."
    )
    return "\n\n".join([*parts, f"{said} {caption(data)}"])


def full_size_brief() -> str:
    """Speed-ups of the choices that most people make, a column a model."""
    data = load("full_size")
    models = by_model(data["rows"])
    timed = {
        name: {row["setting"]: row for row in rows if "seconds" in row}
        for name, rows in models.items()
    }

    def cell(found: Mapping[str, Row], setting: str) -> str:
        row = found.get(setting)
        if row is None:
            return NONE
        return f"{row['speedup']:.2f} ({row['computed']} of {row['evaluations']})"

    seconds = [figure(found.get("plain", {}), "seconds", ".1f") for found in timed.values()]
    lines = [["plain", *(f"{second} s" for second in seconds)]]
    lines += [
        [title, *(cell(found, setting) for found in timed.values())]
        for setting, title in BRIEF.items()
        if any(setting in found for found in timed.values())
    ]
    columns = ["", *(f"{name}{sampled_as(rows)}" for name, rows in models.items())]
    said = "Times the speed of the plain run, and evaluations computed."
    return f"{markdown(columns, lines)}\n\n{said} {caption(data)}"

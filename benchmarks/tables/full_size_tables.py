"""The table of the speed on a GPU in real size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from table_markdown import NONE, Row, Rows, load, machine, markdown, packages

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
    failed = [row for row in rows if "reason" in row]
    missing = [row["setting"] for row in failed if "ImportError" in row["reason"]]
    others = [row for row in failed if row["setting"] not in missing]
    found = [f"{row['setting']} ({row['reason']})" for row in others]
    if missing:
        found.append(f"{', '.join(missing)} (the package is missing or too old)")
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
    """How all rows were measured."""
    how = f"euler, {data['dtype']}, {data['memory_manager']} memory manager"
    times = data.get("repeats", 1)
    how += ", each row sampled once" if times == 1 else f", medians of {times} runs"
    since = f" {data['changed_since']}" if "changed_since" in data else ""
    return f"{RANDOM} {how}.{since} {machine(data)}{packages(data)}"


def full_size() -> str:
    """Every row of every model."""
    data = load("full_size")
    parts = [part(name, rows) for name, rows in by_model(data["rows"]).items()]
    said = (
        "Speed-up is against the plain run; in rows of fewer steps it is that of an evaluation. "
        "“ms” is the median time of an evaluation on the device, the first one left out. Another "
        "kernel, or compiled blocks, round differently, so latents differ with nothing skipped."
    )
    return "\n\n".join([*parts, f"{said} {caption(data)}"])

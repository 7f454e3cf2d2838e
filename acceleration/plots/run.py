"""A picture of one sampling run: change and threshold, decisions by branch, time."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from .chart import FAINT, INK, Panel, Sheet, wrapped

# The colors of the live report in web/live/panel.css.
COMPUTED = "#7f8ea3"
REUSED = "#2fa36b"
FORECAST = "#8b6cf0"
THRESHOLD = "#d64545"
SOFT = "#b8c4d2"
# Lines of the change, one a branch.
BRANCHES = ("#3e6fb0", "#c77d1e", "#8a5a9e", "#4c8c8c")

# The left margin holds the names of branches, as far as they are short.
LEAST_LEFT, MOST_LEFT, RIGHT = 72, 180, 28
MOST_ROWS = 8
ROW = 24
# Where values go further above the threshold than this, they are arrows at the top.
WORTH_SEEING = 4.0
# Times that are longer than so many usual ones are cut off and written out.
OUTLIER = 2.5

Records = Sequence[Mapping[str, Any]]


def message_plot(text: str) -> Image.Image:
    """A sheet with a sentence, for runs that have nothing to show."""
    sheet = Sheet(880, 120)
    for number, line in enumerate(wrapped(sheet, text, 880 - 56, 15)):
        sheet.text((28, 28 + 22 * number), line, 15)
    return sheet.finished()


def run_plot(report: Mapping[str, Any]) -> Image.Image:
    """The plot of a caching run.

    Parameters
    ----------
    report
        ``RunReport.as_dict()``.
    """
    records: Records = report.get("decisions") or ()
    if not records:
        return message_plot(report["sentence"])
    rows = _rows(records)
    names = Sheet(1, 1)
    widest = max(names.text_width(name, 12) for name, _ in rows) + 24
    left = min(max(widest, LEAST_LEFT), MOST_LEFT)
    width = round(min(max(left + RIGHT + 24 * len(records), 880), 1600))
    lines = wrapped(Sheet(width, 1), report["sentence"], width - 56, 14)
    top = 100 + 20 * len(lines)
    has_change = any(_measure(r) is not None for r in records)
    change_height = 210 if has_change else 0
    strips = top + (change_height + 24 if has_change else 0)
    times = strips + ROW * len(rows) + 40
    sheet = Sheet(width, times + 130 + 56)
    _heading(sheet, report, lines, top - 42)

    def panel(upper: float, height: float) -> Panel:
        return Panel(sheet, left, upper, width - RIGHT, upper + height, len(records))

    if has_change:
        _draw_change(panel(top, change_height), records)
    _draw_strips(panel(strips, ROW * len(rows)), records, rows)
    _draw_times(panel(times, 130), records)
    return sheet.finished()


def _heading(sheet: Sheet, report: Mapping[str, Any], lines: list[str], legend: float) -> None:
    family = report.get("family") or "unknown model"
    what = f"{family}, {report['sampler']}, {report['steps']} steps"
    sheet.text((28, 20), report["technique"], 20)
    sheet.text((36 + sheet.text_width(report["technique"], 20), 27), what, 13, FAINT)
    for number, line in enumerate(lines):
        sheet.text((28, 52 + 20 * number), line, 14)
    records: Records = report["decisions"]
    colors = {_color(record) for record in records}
    entries = [
        ("computed", COMPUTED),
        ("skipped: last residual", REUSED),
        ("skipped: forecast", FORECAST),
    ]
    entries = [entry for entry in entries if entry[1] in colors]
    sheet.legend(sheet.width - RIGHT, legend + 6, entries)


def _color(record: Mapping[str, Any]) -> str:
    if not record["skipped"]:
        return COMPUTED
    return FORECAST if record.get("forecast") else REUSED


def _measure(record: Mapping[str, Any]) -> float | None:
    """What was compared with the threshold."""
    value = record.get("accumulated")
    value = record.get("diff") if value is None else value
    return value if value is not None and math.isfinite(value) else None


def _draw_change(panel: Panel, records: Records) -> None:
    measured = {i: m for i, r in enumerate(records) if (m := _measure(r)) is not None}
    thresholds = [r["threshold"] for r in records if r.get("threshold")]
    level = thresholds[-1] if thresholds else None
    highest = max(measured.values())
    if level:
        highest = max(min(highest, WORTH_SEEING * level), 1.25 * level)
    panel.high = highest * 1.06 or 1.0
    sums = any(r.get("accumulated") is not None for r in records)
    panel.axes("estimated change since the last computed one" if sums else "relative change")
    if level is not None:
        panel.level(level, THRESHOLD)
    names = list(dict.fromkeys(r["branch"] for r in records))
    for number, name in enumerate(names):
        line = [(i, m) for i, m in measured.items() if records[i]["branch"] == name]
        panel.curve(line, BRANCHES[number] if 1 < len(names) <= len(BRANCHES) else SOFT)
    for place, value in measured.items():
        panel.mark(place, value, _color(records[place]))
    entries = list(zip(names, BRANCHES, strict=False)) if 1 < len(names) <= len(BRANCHES) else []
    if level is not None:
        entries.append((f"threshold {level:g}", THRESHOLD))
    panel.legend(entries)


def _rows(records: Records) -> list[tuple[str, set[str]]]:
    """Rows of the strips: a branch each, and one for what is too much."""
    names = list(dict.fromkeys(r["branch"] for r in records))
    if len(names) <= MOST_ROWS:
        return [(name, {name}) for name in names]
    shown = names[: MOST_ROWS - 1]
    rest = names[MOST_ROWS - 1 :]
    return [*((name, {name}) for name in shown), (f"{len(rest)} others", set(rest))]


def _draw_strips(panel: Panel, records: Records, rows: list[tuple[str, set[str]]]) -> None:
    for number, (name, members) in enumerate(rows):
        top = panel.top + ROW * number
        told = _short(panel.sheet, name, panel.left - 16)
        panel.sheet.text((panel.left - 8, top + ROW / 2), told, 12, INK, "rm")
        for place, record in enumerate(records):
            if record["branch"] in members:
                gap = min(panel.step * 0.08, 1.5)
                low = (panel.x(place) - panel.step / 2 + gap, top + 2)
                high = (panel.x(place) + panel.step / 2 - gap, top + ROW - 3)
                panel.sheet.box(low, high, _color(record))


def _short(sheet: Sheet, name: str, width: float) -> str:
    """A branch's name cut to the room left of the strips."""
    short = name
    while sheet.text_width(short, 12) > width:
        short = short.removesuffix("…")[:-1] + "…"
    return short


def _draw_times(panel: Panel, records: Records) -> None:
    times = [1000 * r["seconds"] for r in records]
    # First evaluations often load the model or compile; they must not flatten the others.
    full = [time for time, r in zip(times, records, strict=True) if not r["skipped"]] or times
    panel.high = min(max(times), OUTLIER * statistics.median(full)) * 1.06 or 1.0
    cut = [f"{time:.0f}" for time in times if time > panel.high]
    told = f" (cut off: {', '.join(cut[:4])}{' …' if len(cut) > 4 else ''})" if cut else ""
    panel.axes(f"ms an evaluation{told}")
    for place, (time, record) in enumerate(zip(times, records, strict=True)):
        panel.bar(place, time, _color(record))
    panel.place_names("evaluation")

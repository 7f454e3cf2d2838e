"""A picture of a calibration: TeaCache's fit, and how much the first blocks change."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from .chart import FAINT, Panel, Sheet, wrapped

WIDTH = 720
LEFT, RIGHT = 72, 28
PANEL = 170
POINTS = 61
CURVE = "#3e6fb0"
CHANGES = "#2fa36b"


def calibration_plot(calibration: Mapping[str, Any]) -> Image.Image:
    """The polynomial over the inputs that were seen, and the sorted changes of the first blocks.

    Parameters
    ----------
    calibration
        ``Calibration.as_dict()``.
    """
    told = (
        f"TeaCache for this {calibration['family']} checkpoint, from {calibration['points']} "
        f"steps: the fit explains {calibration['r2']:.1%}."
    )
    changes: Sequence[float] = calibration["cache_dit_diffs"]
    lines = wrapped(Sheet(WIDTH, 1), told, WIDTH - 56, 15)
    top = 62 + 22 * len(lines)
    sheet = Sheet(WIDTH, top + (PANEL + 76) * (2 if changes else 1))
    for number, line in enumerate(lines):
        sheet.text((28, 22 + 22 * number), line, 15)
    _draw_fit(_panel(sheet, top, POINTS), calibration)
    if changes:
        _draw_changes(_panel(sheet, top + PANEL + 76, len(changes)), changes)
    return sheet.finished()


def _panel(sheet: Sheet, top: float, columns: int) -> Panel:
    return Panel(sheet, LEFT, top, WIDTH - RIGHT, top + PANEL, columns)


def _draw_fit(panel: Panel, calibration: Mapping[str, Any]) -> None:
    low, high = calibration["input_range"]
    inputs = [low + (high - low) * place / (POINTS - 1) for place in range(POINTS)]
    values = [_polynomial(calibration["coefficients"], x) for x in inputs]
    panel.low, panel.high = min(0.0, *values), 1.06 * max(*values, 1e-9)
    panel.axes("change of the output")
    panel.curve(list(enumerate(values)), CURVE, 2)
    _below(panel, f"{low:.3g}", "change of the input", f"{high:.3g}")


def _draw_changes(panel: Panel, changes: Sequence[float]) -> None:
    panel.high = 1.06 * max(changes) or 1.0
    panel.axes("change of the first block (Cache-DiT's threshold is compared with it)")
    for place, change in enumerate(changes):
        panel.bar(place, change, CHANGES)
    _below(panel, "0%", "share of the steps that change by less", "100%")


def _below(panel: Panel, first: str, middle: str, last: str) -> None:
    """Words below a panel, at its ends and between."""
    y = panel.bottom + 8
    panel.sheet.text((panel.left, y), first, 12, FAINT, "la")
    panel.sheet.text(((panel.left + panel.right) / 2, y), middle, 13, FAINT, "ma")
    panel.sheet.text((panel.right, y), last, 12, FAINT, "ra")


def _polynomial(coefficients: Sequence[float], x: float) -> float:
    value = 0.0
    for coefficient in coefficients:
        value = value * x + coefficient
    return value

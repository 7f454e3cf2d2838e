"""A picture of a comparison: PSNR and SSIM over the pictures or frames."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from .chart import FAINT, Panel, Sheet, wrapped

LEFT, RIGHT = 72, 28
PANEL = 170
COLORS = {"psnr": "#3e6fb0", "ssim": "#2fa36b", "lpips": "#c77d1e"}
TITLES = {
    "psnr": "PSNR, dB (higher is nearer)",
    "ssim": "SSIM (higher is nearer)",
    "lpips": "LPIPS (lower is nearer)",
}
LIMIT = "#d64545"


def comparison_plot(comparison: Mapping[str, Any]) -> Image.Image:
    """Curves of every metric.

    Parameters
    ----------
    comparison
        ``Comparison.as_dict()``.
    """
    items: Sequence[Mapping[str, Any]] = comparison["items"]
    if len(items) == 1:
        return _of_one(comparison, items[0])
    metrics = [m for m in COLORS if any(item.get(m) is not None for item in items)]
    width = min(max(LEFT + RIGHT + 24 * len(items), 720), 1600)
    lines = wrapped(Sheet(width, 1), comparison["sentence"], width - 56, 15)
    top = 62 + 22 * len(lines)
    sheet = Sheet(width, top + (PANEL + 46) * len(metrics) + 20)
    for number, line in enumerate(lines):
        sheet.text((28, 22 + 22 * number), line, 15)
    for number, metric in enumerate(metrics):
        upper = top + (PANEL + 46) * number
        panel = Panel(sheet, LEFT, upper, width - RIGHT, upper + PANEL, len(items))
        _draw(panel, metric, items, comparison.get(f"min_{metric}") or None)
    if metrics:
        panel.place_names(comparison["kind"])
    return sheet.finished()


def _of_one(comparison: Mapping[str, Any], item: Mapping[str, Any]) -> Image.Image:
    """The figures of a single picture, written: a curve of one dot shows nothing."""
    told = [
        (TITLES[metric], f"{item[metric]:.4g}") for metric in COLORS if item.get(metric) is not None
    ]
    width = 720
    lines = wrapped(Sheet(width, 1), comparison["sentence"], width - 56, 15)
    top = 40 + 22 * len(lines)
    sheet = Sheet(width, top + 34 * len(told) + 14)
    for number, line in enumerate(lines):
        sheet.text((28, 22 + 22 * number), line, 15)
    for number, (title, value) in enumerate(told):
        middle = top + 34 * number + 12
        sheet.text((28, middle), title, 13, FAINT, "lm")
        sheet.text((width - 28, middle), value, 20, anchor="rm")
    return sheet.finished()


def _draw(
    panel: Panel, metric: str, items: Sequence[Mapping[str, Any]], limit: float | None
) -> None:
    values = [(i, v) for i, item in enumerate(items) if (v := item.get(metric)) is not None]
    numbers = [v for _, v in values] + ([limit] if limit else [])
    margin = 0.15 * (max(numbers) - min(numbers)) or 0.02 * abs(max(numbers)) or 0.01
    panel.low, panel.high = min(numbers) - margin, max(numbers) + margin
    if metric == "lpips":
        panel.low = max(panel.low, 0.0)
    panel.axes(TITLES[metric])
    panel.curve(values, COLORS[metric], 2)
    for place, value in values:
        panel.mark(place, value, COLORS[metric])
    if limit:
        panel.level(limit, LIMIT)
        panel.legend([(f"minimum {limit:g}", LIMIT)])
    if metric == "psnr":
        for place, item in enumerate(items):
            if item["identical"]:
                panel.sheet.text((panel.x(place), panel.top + 6), "=", 13, FAINT, "ma")

"""A picture of a quantized model: the error of every layer, and in which format it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from PIL import Image

from .chart import FAINT, Panel, Sheet, wrapped
from .run import message_plot

LEFT, RIGHT = 72, 28
WIDTH, PANEL = 960, 220
COLORS = {
    "int8": "#2fa36b",
    "fp8": "#3e6fb0",
    "mxfp8": "#4c8c8c",
    "nvfp4": "#c77d1e",
}


def quantize_plot(report: Mapping[str, Any]) -> Image.Image:
    """A bar a layer, in the order of the model.

    Parameters
    ----------
    report
        ``QuantizeReport.as_dict()``.
    """
    layers: Sequence[Mapping[str, Any]] = report.get("layers") or ()
    if not layers:
        return message_plot(report["sentence"])
    lines = wrapped(Sheet(WIDTH, 1), report["sentence"], WIDTH - 56, 15)
    top = 76 + 22 * len(lines)
    sheet = Sheet(WIDTH, top + PANEL + 62)
    for number, line in enumerate(lines):
        sheet.text((28, 22 + 22 * number), line, 15)
    whole = all(layer["error"] is not None for layer in layers)
    errors = [100 * layer["error" if whole else "local"] for layer in layers]
    panel = Panel(sheet, LEFT, top, WIDTH - RIGHT, top + PANEL, len(layers))
    panel.high = max(errors) * 1.08 or 1.0
    panel.axes(
        "% error of the model, with only this layer quantized"
        if whole
        else "% error of the layer's own output"
    )
    for place, (error, layer) in enumerate(zip(errors, layers, strict=True)):
        panel.bar(place, error, COLORS.get(layer["format"], FAINT))
    panel.place_names("layer, in the order of the model")
    panel.legend([(name, color) for name, color in COLORS.items() if name in report["formats"]])
    return sheet.finished()

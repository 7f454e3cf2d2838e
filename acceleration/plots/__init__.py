"""Pictures of plain data: a sampling run, a comparison. Drawn with Pillow, which the host has."""

from .calibration import calibration_plot
from .chart import as_image_batch
from .heat import FULL_SCALE, heat_map, heat_sheet
from .presets import Column, presets_plot
from .quality import comparison_plot
from .quantize import quantize_plot
from .run import message_plot, run_plot

__all__ = [
    "FULL_SCALE",
    "Column",
    "as_image_batch",
    "calibration_plot",
    "comparison_plot",
    "heat_map",
    "heat_sheet",
    "message_plot",
    "presets_plot",
    "quantize_plot",
    "run_plot",
]

"""Pictures of plain data: a sampling run, a comparison. Drawn with Pillow, which the host has."""

from .chart import as_image_batch
from .quality import comparison_plot
from .quantize import quantize_plot
from .run import message_plot, run_plot

__all__ = ["as_image_batch", "comparison_plot", "message_plot", "quantize_plot", "run_plot"]

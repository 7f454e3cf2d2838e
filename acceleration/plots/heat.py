"""Differences as colors, and the legend that says which color is how much."""

from __future__ import annotations

import torch
from PIL import Image

from .chart import FAINT, Sheet

# Dark to light through purple and orange, light growing evenly, so that it also reads in gray.
HEAT = ((0.0, 0.0, 0.04), (0.31, 0.07, 0.42), (0.72, 0.22, 0.33), (0.97, 0.55, 0.15), (1, 1, 0.78))

FULL_SCALE = 0.1
"""The difference that is drawn lightest, as a share of the range of values (26 of the 255 levels of
a picture). Fixed, so that two maps can be compared by looking."""

LEGEND_HEIGHT = 26


def heat_map(differences: torch.Tensor, full_scale: float) -> torch.Tensor:
    """Colors of differences.

    Parameters
    ----------
    differences
        ``[N, H, W]``, not negative.
    full_scale
        The difference that gets the lightest color.

    Returns
    -------
    torch.Tensor
        ``[N, H, W, 3]`` in 0..1.
    """
    colors = torch.tensor(HEAT)
    place = (differences / (full_scale or 1.0)).clamp(0, 1) * (len(HEAT) - 1)
    below = place.floor().long().clamp(max=len(HEAT) - 2)
    share = (place - below)[..., None]
    return colors[below] * (1 - share) + colors[below + 1] * share


def as_picture(values: torch.Tensor) -> Image.Image:
    """A picture ``[H, W, C]`` in 0..1, of which the first three channels are shown."""
    channels = values[..., :3] if values.shape[-1] >= 3 else values[..., :1].expand(-1, -1, 3)
    pixels = (channels.float().clamp(0, 1) * 255).round().to(torch.uint8)
    return Image.fromarray(pixels.cpu().numpy())


def draw_legend(
    sheet: Sheet, left: float, top: float, right: float, full_scale: float, size: int = 12
) -> None:
    """The colors from no difference to the largest that is told apart."""
    least, most = "0 equal", f"{full_scale:.2g} or more"
    begin = left + sheet.text_width(least, size) + 8
    end = right - sheet.text_width(most, size) - 8
    sheet.text((left, top + LEGEND_HEIGHT / 2), least, size, FAINT, "lm")
    scale = torch.linspace(0, 1, 256)[None, None]
    bar = (end - begin, LEGEND_HEIGHT - 12)
    sheet.picture((begin, top + 6), as_picture(heat_map(scale, 1.0)[0]), bar)
    sheet.text((right, top + LEGEND_HEIGHT / 2), most, size, FAINT, "rm")


def heat_sheet(heat: torch.Tensor, full_scale: float, most_side: int = 320) -> Image.Image:
    """A heat map ``[H, W, 3]`` above its legend, as large as a node needs it."""
    height, width = heat.shape[:2]
    scale = most_side / max(height, width)
    size = (max(round(width * scale), 200), max(round(height * scale), 1))
    sheet = Sheet(size[0] + 16, size[1] + 16 + LEGEND_HEIGHT)
    sheet.picture((8, 8), as_picture(heat), size)
    draw_legend(sheet, 8, size[1] + 11, size[0] + 8, full_scale, 16)
    return sheet.finished()

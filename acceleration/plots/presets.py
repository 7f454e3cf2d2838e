"""A picture of a comparison of presets: what each made, what it saved, and where it differs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from PIL import Image

from .chart import FAINT, INK, Sheet, wrapped
from .heat import FULL_SCALE, LEGEND_HEIGHT, as_picture, draw_legend, heat_map

TILE = 256
GAP = 10
MARGIN = 20
ACCENT = "#14589f"
CAPTION = 96


@dataclass(frozen=True)
class Column:
    """One preset: its row in words, its picture ``[H, W, C]`` in 0..1, and the differences of it
    ``[H, W]``, None for the one that all are compared to."""

    row: Sequence[str]
    picture: torch.Tensor
    differences: torch.Tensor | None


def presets_plot(columns: Sequence[Column], title: str) -> Image.Image:
    """The presets side by side, pictures above and differences on one scale below.

    ``row``: preset, seconds, speed, computed, PSNR and SSIM.
    """
    height = round(TILE * columns[0].picture.shape[0] / columns[0].picture.shape[1])
    width = 2 * MARGIN + len(columns) * TILE + (len(columns) - 1) * GAP
    lines = wrapped(Sheet(width, 1), title, width - 2 * MARGIN, 15)
    top = MARGIN + 22 * len(lines) + CAPTION
    sheet = Sheet(width, top + 2 * (height + GAP) + LEGEND_HEIGHT + MARGIN)
    for number, line in enumerate(lines):
        sheet.text((MARGIN, MARGIN - 4 + 22 * number), line, 15)
    for number, column in enumerate(columns):
        left = MARGIN + number * (TILE + GAP)
        _caption(sheet, column.row, left, top)
        sheet.picture((left, top), as_picture(column.picture), (TILE, height))
        if column.differences is not None:
            heat = as_picture(heat_map(column.differences[None], FULL_SCALE)[0])
            sheet.picture((left, top + height + GAP), heat, (TILE, height))
    bottom = top + 2 * (height + GAP)
    told = "where they differ, mean of the channels"
    sheet.text((MARGIN, bottom - height - GAP + 4), told, 12, FAINT)
    draw_legend(sheet, MARGIN + TILE + GAP, bottom, width - MARGIN, FULL_SCALE)
    return sheet.finished()


def _caption(sheet: Sheet, row: Sequence[str], left: float, top: float) -> None:
    name, seconds, speed, computed, psnr, ssim = row
    middle = left + TILE / 2
    near = {"–": "the full run", "identical": psnr}.get(psnr, f"{psnr}, SSIM {ssim}")
    # Pillow's own font has no such sign.
    speed = speed.replace("×", "x as fast").replace("–", "")
    texts = [(f"{computed} computed", 12, FAINT), (near, 14, INK)]
    texts += [(", ".join(filter(None, (speed, seconds))), 17, ACCENT), (name, 17, INK)]
    upwards = top - 10
    for text, size, color in texts:
        sheet.text((middle, upwards), text, size, color, "ms")
        upwards -= size + 7

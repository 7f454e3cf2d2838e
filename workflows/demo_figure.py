"""Metrics and the picture of the demo."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.metrics import structural_similarity

TILE = 128
GAP = 6
CAPTION_WIDTH = 250
MIN_WIDTH = 660  # the title
HEADER = 34
AMPLIFIED = 8
BEST_PSNR = 150.0
BACKGROUND = (250, 250, 248)
INK = (30, 30, 30)
FAINT = (110, 110, 110)

Array = np.ndarray


@dataclass(frozen=True)
class Strip:
    """One line of pictures: a caption of a bold first line and plain ones, and a picture each."""

    title: str
    lines: Sequence[str]
    pictures: Sequence[Array]


def psnr(value: Array, reference: Array, peak: float) -> float:
    """Peak signal-to-noise ratio in dB of an array to a reference of the same shape.

    Equal arrays count as `BEST_PSNR`, so that means and JSON stay finite.
    """
    error = float(np.mean((value.astype(np.float64) - reference.astype(np.float64)) ** 2))
    return BEST_PSNR if error == 0 else min(BEST_PSNR, float(10 * np.log10(peak**2 / error)))


def value_range(arrays: Sequence[Array]) -> float:
    """The range of all values together, the peak that PSNR is measured against."""
    return float(max(a.max() for a in arrays) - min(a.min() for a in arrays))


def ssim(value: Array, reference: Array) -> float:
    """Structural similarity of two pictures, shape [H, W, 3], 0..255."""
    return float(structural_similarity(value, reference, channel_axis=2, data_range=255))


def read_picture(path: Path) -> Array:
    """Read a picture as uint8, shape [H, W, 3]."""
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))


def difference(value: Array, reference: Array) -> Array:
    """The absolute difference of two pictures, amplified so that one can see it."""
    delta = np.abs(value.astype(np.int16) - reference.astype(np.int16)) * AMPLIFIED
    return np.clip(delta, 0, 255).astype(np.uint8)


def draw(strips: Sequence[Strip], headings: Sequence[str], title: str, path: Path) -> None:
    """Draw lines of pictures under headings and save them as PNG."""
    top = 2 * HEADER + GAP
    width = max(MIN_WIDTH, CAPTION_WIDTH + len(headings) * (TILE + GAP) + GAP)
    canvas = Image.new("RGB", (width, top + len(strips) * (TILE + GAP) + GAP), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    pen.text((2 * GAP, GAP), title, INK, ImageFont.load_default(18))
    for column, heading in enumerate(headings):
        x = CAPTION_WIDTH + column * (TILE + GAP) + TILE // 2
        pen.text((x, top - GAP), heading, INK, ImageFont.load_default(14), anchor="ms")
    for row, strip in enumerate(strips):
        y = top + row * (TILE + GAP)
        caption(pen, strip, y)
        for column, picture in enumerate(strip.pictures):
            tile = Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.LANCZOS)
            canvas.paste(tile, (CAPTION_WIDTH + column * (TILE + GAP), y))
    canvas.save(path, optimize=True)


def caption(pen: ImageDraw.ImageDraw, strip: Strip, y: int) -> None:
    """Write a strip's caption, broken to the width of the margin."""
    y += 12
    pen.text((2 * GAP, y), strip.title, INK, ImageFont.load_default(17))
    y += 26
    for line in strip.lines:
        for part in textwrap.wrap(line, 34):
            pen.text((2 * GAP, y), part, FAINT, ImageFont.load_default(14))
            y += 19

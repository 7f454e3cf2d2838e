"""Metrics and the picture of the demo."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw, ImageFont
from skimage.metrics import structural_similarity

TILE = 168
GAP = 6
MARGIN = 124
HEADER = 194
AMPLIFIED = 8
BEST_PSNR = 150.0
BACKGROUND = (250, 250, 248)
INK = (30, 30, 30)
FAINT = (110, 110, 110)
ACCENT = (20, 90, 160)

Array = np.ndarray
Color = tuple[int, int, int]


@dataclass(frozen=True)
class Column:
    """What one setting made: a picture a prompt, and its difference from the full run's."""

    family: str
    name: str
    speed: str
    nearness: str
    work: str
    pictures: Sequence[Array]
    differences: Sequence[Array] = ()


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


def draw(columns: Sequence[Column], headings: Sequence[str], title: str, path: Path) -> None:
    """Draw columns of pictures side by side, a line of them a heading, and save them as PNG."""
    lines = len(headings)
    width = MARGIN + len(columns) * (TILE + GAP) + GAP
    height = HEADER + lines * (2 * (TILE + GAP) + GAP) + GAP
    canvas = Image.new("RGB", (width, height), BACKGROUND)
    pen = ImageDraw.Draw(canvas)
    pen.text((2 * GAP, 2 * GAP), title, INK, font(21))
    for line, heading in enumerate(headings):
        label(pen, heading, top_of(line) + TILE // 2, INK, 17)
        label(
            pen, f"difference, {AMPLIFIED} times amplified", top_of(line) + TILE * 3 // 2, FAINT, 14
        )
    for number, column in enumerate(columns):
        left = MARGIN + number * (TILE + GAP)
        caption(pen, column, left)
        for line in range(lines):
            paste(canvas, column.pictures[line], left, top_of(line))
            if column.differences:
                paste(canvas, column.differences[line], left, top_of(line) + TILE + GAP)
    canvas.save(path, optimize=True)


def font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size)


def top_of(line: int) -> int:
    """Where a line of pictures begins; their differences stand below."""
    return HEADER + line * (2 * (TILE + GAP) + GAP)


def paste(canvas: Image.Image, picture: Array, left: int, top: int) -> None:
    tile = Image.fromarray(picture).resize((TILE, TILE), Image.Resampling.LANCZOS)
    canvas.paste(tile, (left, top))


def label(pen: ImageDraw.ImageDraw, text: str, middle: int, color: Color, size: int) -> None:
    """Write into the left margin, broken to its width."""
    parts = textwrap.wrap(text, MARGIN * 2 // size - 2)
    y = middle - len(parts) * (size + 4) // 2
    for part in parts:
        pen.text((2 * GAP, y), part, color, font(size))
        y += size + 4


def caption(pen: ImageDraw.ImageDraw, column: Column, left: int) -> None:
    """Write over a column what it is, what it saves, and how near it stays."""
    middle, y = left + TILE // 2, HEADER - 2 * GAP
    texts = [(column.family, FAINT, 14), (column.name, INK, 19)]
    texts += [(column.speed, ACCENT, 24), (column.nearness, INK, 18), (column.work, FAINT, 14)]
    for text, color, size in reversed(texts):
        pen.text((middle, y), text, color, font(size), anchor="ms")
        y -= size + 7

"""A sheet to draw on and panels with axes: as much of a plotting library as our plots need."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont

BACKGROUND = "#ffffff"
INK = "#1f2933"
FAINT = "#52606d"
GRID = "#e4e7eb"
FRAME = "#cbd2d9"

# Everything is drawn larger and reduced at the end, which smooths lines and dots.
OVERSAMPLING = 2

Font = ImageFont.FreeTypeFont | ImageFont.ImageFont
Point = tuple[float, float]


@lru_cache
def font(size: int) -> Font:
    """Pillow's own font; one that has no sizes where Pillow is old."""
    try:
        return ImageFont.load_default(size)
    except TypeError:
        return ImageFont.load_default()


def as_image_batch(picture: Image.Image) -> torch.Tensor:
    """A picture as the host's IMAGE, ``[1, H, W, 3]`` in 0..1."""
    values = np.asarray(picture.convert("RGB"), dtype=np.float32) / 255
    return torch.from_numpy(values)[None]


class Sheet:
    """A white sheet; all sizes are in pixels of the finished picture."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        size = (width * OVERSAMPLING, height * OVERSAMPLING)
        self._picture = Image.new("RGB", size, BACKGROUND)
        self._draw = ImageDraw.Draw(self._picture)

    def finished(self) -> Image.Image:
        """The picture in its own size."""
        return self._picture.reduce(OVERSAMPLING)

    def text(
        self, at: Point, text: str, size: int = 13, color: str = INK, anchor: str = "la"
    ) -> None:
        """A line of text; ``anchor`` as in Pillow ("l", "m", "r" and "a", "m", "s")."""
        face = font(size * OVERSAMPLING)
        if not isinstance(face, ImageFont.FreeTypeFont):
            anchor = "la"
        self._draw.text(_up(at), text, color, face, anchor=anchor)

    def text_width(self, text: str, size: int = 13) -> float:
        """Width of a line of text."""
        return font(size * OVERSAMPLING).getlength(text) / OVERSAMPLING

    def box(self, low: Point, high: Point, fill: str | None, outline: str | None = None) -> None:
        """A rectangle between its upper left and its lower right corner."""
        (left, top), (right, bottom) = _up(low), _up(high)
        corners = (left, top, max(right - 1, left), max(bottom - 1, top))
        self._draw.rectangle(corners, fill, outline, OVERSAMPLING)

    def picture(self, at: Point, picture: Image.Image, size: Point) -> None:
        """A picture in a size of its own."""
        width, height = (max(round(side * OVERSAMPLING), 1) for side in size)
        left, top = _up(at)
        self._picture.paste(picture.resize((width, height)), (round(left), round(top)))

    def line(
        self, points: Sequence[Point], color: str, width: float = 1.5, dash: float = 0
    ) -> None:
        """A line through points; with ``dash`` only every other piece of a straight one."""
        pieces = [points] if not dash else _dashes(points[0], points[-1], dash)
        for piece in pieces:
            self._draw.line(
                [_up(point) for point in piece],
                color,
                max(round(width * OVERSAMPLING), 1),
                joint="curve",
            )

    def dot(self, at: Point, color: str, radius: float = 3.5) -> None:
        """A filled circle with a thin white rim."""
        x, y = _up(at)
        reach = radius * OVERSAMPLING
        self._draw.ellipse((x - reach, y - reach, x + reach, y + reach), color, BACKGROUND, 2)

    def arrow_up(self, at: Point, color: str, radius: float = 4.5) -> None:
        """A triangle that says that a value lies further up."""
        x, y = _up(at)
        reach = radius * OVERSAMPLING
        self._draw.polygon([(x - reach, y + reach), (x + reach, y + reach), (x, y - reach)], color)

    def legend(self, right: float, top: float, entries: Sequence[tuple[str, str]]) -> None:
        """Names with their colors in a row that ends at ``right``."""
        for name, color in reversed(entries):
            right -= self.text_width(name, 13)
            self.text((right, top), name, 13, FAINT, "lm")
            self.box((right - 18, top - 6), (right - 6, top + 6), color)
            right -= 36


def wrapped(sheet: Sheet, text: str, width: float, size: int) -> list[str]:
    """Text in lines that are no wider than ``width``."""
    lines: list[str] = []
    for word in text.split():
        longer = f"{lines[-1]} {word}" if lines else word
        if lines and sheet.text_width(longer, size) <= width:
            lines[-1] = longer
        else:
            lines.append(word)
    return lines


@dataclass
class Panel:
    """A rectangle of a sheet with a value axis; x are places such as numbers of evaluations."""

    sheet: Sheet
    left: float
    top: float
    right: float
    bottom: float
    columns: int
    """Places on the x axis, from 0."""
    low: float = 0.0
    high: float = 1.0

    def x(self, place: float) -> float:
        """The middle of a place."""
        return self.left + (place + 0.5) * self.step

    @property
    def step(self) -> float:
        """Width of a place."""
        return (self.right - self.left) / max(self.columns, 1)

    def y(self, value: float) -> float:
        """Height of a value, held inside the panel."""
        share = (value - self.low) / ((self.high - self.low) or 1.0)
        return self.bottom - min(max(share, 0.0), 1.0) * (self.bottom - self.top)

    def axes(self, title: str, form: str = "{:g}") -> None:
        """Frame, horizontal grid lines with their values, and a title above."""
        self.sheet.text((self.left, self.top - 10), title, 13, FAINT, "ls")
        for tick in nice_ticks(self.low, self.high, 5):
            y = self.y(tick)
            self.sheet.line([(self.left, y), (self.right, y)], GRID, 1)
            self.sheet.text((self.left - 8, y), form.format(tick), 12, FAINT, "rm")
        self.sheet.box((self.left, self.top), (self.right, self.bottom), None, FRAME)

    def place_names(self, title: str = "") -> None:
        """Numbers of places below the panel, as many as have room."""
        every = max(math.ceil(30 / self.step), 1)
        every = next(n for n in (1, 2, 5, 10, 20, 25, 50, 100, every) if n >= every)
        for place in range(0, self.columns, every):
            at = (self.x(place), self.bottom + 7)
            self.sheet.text(at, str(place + 1), 12, FAINT, "ma")
        middle = (self.left + self.right) / 2
        self.sheet.text((middle, self.bottom + 25), title, 13, FAINT, "ma")

    def curve(self, values: Sequence[tuple[int, float]], color: str, width: float = 1.5) -> None:
        """A line through values at places."""
        if len(values) > 1:
            points = [(self.x(place), self.y(value)) for place, value in values]
            self.sheet.line(points, color, width)

    def mark(self, place: int, value: float, color: str) -> None:
        """One value; an arrow where it lies above the panel."""
        radius = min(max(self.step * 0.3, 2.0), 4.0)
        if value > self.high:
            self.sheet.arrow_up((self.x(place), self.top + 7), color, radius + 1)
        else:
            self.sheet.dot((self.x(place), self.y(value)), color, radius)

    def bar(self, place: int, value: float, color: str) -> None:
        """A bar from the bottom."""
        reach = max(self.step * 0.38, 0.5)
        low = (self.x(place) - reach, self.y(value))
        self.sheet.box(low, (self.x(place) + reach, self.bottom), color)

    def level(self, value: float, color: str) -> None:
        """A dashed line across the panel."""
        y = self.y(value)
        self.sheet.line([(self.left, y), (self.right, y)], color, 1.5, dash=6)

    def legend(self, entries: Sequence[tuple[str, str]]) -> None:
        """Names with their colors, above the panel on the right."""
        self.sheet.legend(self.right, self.top - 14, entries)


def nice_ticks(low: float, high: float, about: int) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten) from ``low`` to ``high``."""
    span = high - low
    if span <= 0 or not math.isfinite(span):
        return [low]
    power = 10 ** math.floor(math.log10(span / about))
    step = next(n * power for n in (1, 2, 5, 10) if span / (n * power) <= about)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [round(n * step, 10) for n in range(first, last + 1)]


def _up(point: Point) -> Point:
    return point[0] * OVERSAMPLING, point[1] * OVERSAMPLING


def _dashes(start: Point, end: Point, length: float) -> list[list[Point]]:
    distance = math.dist(start, end)
    pieces = []
    for n in range(0, int(distance / length), 2):
        a, b = n * length / distance, min((n + 1) * length / distance, 1.0)
        pieces.append([_between(start, end, a), _between(start, end, b)])
    return pieces


def _between(start: Point, end: Point, share: float) -> Point:
    return start[0] + (end[0] - start[0]) * share, start[1] + (end[1] - start[1]) * share

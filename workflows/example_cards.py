"""Draws the thumbnails that the template browser shows beside the example workflows.

A card names the model and shows a sampling run as bars: full ones are computed steps, outlined
ones are skipped. Only the demo has a real picture, made by its own model.
"""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

SIZE = 480
MARGIN = 36
BACK, TEXT, FAINT, COMPUTED, SKIPPED = "#14181f", "#f2f5f9", "#9aa7b8", "#4cc38a", "#5b6675"
# A run as the default settings make it: a warm-up, then runs of at most three skipped steps.
STEPS = "CCCCSSCSSSCSSSCSSSCC"


def card(model: str, task: str) -> bytes:
    """A thumbnail as JPEG."""
    image = Image.new("RGB", (SIZE, SIZE), BACK)
    draw = ImageDraw.Draw(image)
    _text(draw, (MARGIN, 84), model, 56, TEXT)
    _text(draw, (MARGIN, 160), task, 28, FAINT)
    step = (SIZE - 2 * MARGIN) / len(STEPS)
    for number, kind in enumerate(STEPS):
        left = MARGIN + number * step
        if kind == "C":
            draw.rounded_rectangle((left, 280, left + step - 6, 410), 4, fill=COMPUTED)
        else:
            box = (left + 1, 345, left + step - 7, 408)
            draw.rounded_rectangle(box, 4, outline=SKIPPED, width=3)
    return _jpeg(image)


def from_picture(path: Path) -> bytes:
    """A thumbnail of a wide picture, centred on the cards' ground."""
    image = Image.new("RGB", (SIZE, SIZE), BACK)
    with Image.open(path) as picture:
        small = picture.convert("RGB")
        small.thumbnail((SIZE, SIZE), Image.Resampling.LANCZOS)
        image.paste(small, ((SIZE - small.width) // 2, (SIZE - small.height) // 2))
    return _jpeg(image)


def _text(draw: ImageDraw.ImageDraw, at: tuple[int, int], text: str, size: int, color: str) -> None:
    """Write one line, smaller where it would not fit."""
    font = ImageFont.load_default(size)
    while draw.textlength(text, font) > SIZE - 2 * MARGIN:
        size -= 1
        font = ImageFont.load_default(size)
    draw.text(at, text, color, font)


def _jpeg(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "JPEG", quality=88, optimize=True)
    return file.getvalue()

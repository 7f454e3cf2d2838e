#!/usr/bin/env python3
"""Draws what the check models draw: every prompt, a few seeds, at both sizes. None is selected."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import checks
import harness

LABEL, GAP, HEAD = 132, 8, 18
TILES = {"Qwen-Image": 64, "HunyuanVideo": 40}
SEEDS = {"Qwen-Image": 4, "HunyuanVideo": 2}


def sampled(demo: Any, prompt: str, seed: int, cfg: float, steps: int, side: int) -> Any:
    """A picture as Pillow has it."""
    from PIL import Image

    demo.side = side
    array = demo.picture(demo.sample(demo.model, prompt, seed, cfg, steps).latent)
    return Image.fromarray((array * 255).round().astype("uint8"))


class SizedDemo(checks.CheckDemo):
    """Samples at another side."""

    side: int | None = None

    def empty(self, side: int | None = None) -> Any:
        return super().empty(side or self.side)


def sheet(name: str, options: argparse.Namespace) -> Any:
    """One row a prompt: full side at each guidance scale, then half the side."""
    from PIL import Image, ImageDraw

    demo, tile = SizedDemo(name), TILES[name]
    full = demo.canvas.side
    columns = [(full, cfg) for cfg in options.cfg] + [(full // 2, options.cfg[-1])]
    wide = tile * demo.canvas.frames
    block = wide * SEEDS[name] + GAP
    size = LABEL + len(columns) * block, HEAD + len(demo.prompts) * (tile + 2)
    paper = Image.new("RGB", size, "white")
    pen = ImageDraw.Draw(paper)
    for i, (side, cfg) in enumerate(columns):
        pen.text((LABEL + i * block, 3), f"{side} a side, CFG {cfg:g}", fill="black")
        for row, prompt in enumerate(demo.prompts):
            top = HEAD + row * (tile + 2)
            pen.text((4, top + tile // 2 - 6), prompt, fill="black")
            for seed in range(SEEDS[name]):
                picture = sampled(demo, prompt, seed, cfg, options.steps, side)
                large = picture.resize((wide, tile), Image.Resampling.BICUBIC)
                paper.paste(large, (LABEL + i * block + seed * wide, top))
    return paper


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--models", nargs="+", default=list(checks.CHECKS))
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--folder", type=Path, default=checks.FOLDER)


def main(options: argparse.Namespace, environment: Any) -> int:
    for name in options.models:
        path = options.folder / f"sheet_{name.lower().replace('-', '_')}.png"
        sheet(name, options).save(path, optimize=True)
        harness.say(f"{path} {path.stat().st_size} bytes")
    return 0


if __name__ == "__main__":
    harness.run(__file__, add_options, main)

"""How near two pictures are, in words; the figures stand behind them."""

from __future__ import annotations

import math

import torch

# Rules of thumb of this pack. 40 dB is where most people stop seeing a difference side by side.
UNSEEN_PSNR, UNSEEN_SSIM = 40.0, 0.97
TEXTURE_COARSE, DETAIL_COARSE = 32.0, 24.0
"""PSNR of the pictures without their detail: above the first only texture differs, below the second
things have moved."""

COARSE_SIDE = 16
"""Cells of the shorter side of a picture without its detail."""

IDENTICAL = "identical"
WORDS = (
    IDENTICAL,
    "no visible difference",
    "small differences in texture",
    "details changed",
    "composition changed",
)
"""From near to far."""


def coarse_psnr(one: torch.Tensor, other: torch.Tensor) -> float:
    """PSNR in dB of two pictures ``[H, W, C]`` in 0..1 without their detail; may be infinite."""
    height, width, _ = one.shape
    cell = max(min(height, width) / COARSE_SIDE, 1)
    size = (max(round(height / cell), 1), max(round(width / cell), 1))
    difference = (one - other).movedim(-1, 0)[None]
    error = float(torch.nn.functional.adaptive_avg_pool2d(difference, size).square().mean())
    return -10 * math.log10(error) if error else math.inf


def words_of(identical: bool, psnr: float | None, ssim: float | None, coarse: float) -> str:
    """One of ``WORDS``."""
    if identical:
        return WORDS[0]
    if (psnr or 0.0) >= UNSEEN_PSNR and (ssim is None or ssim >= UNSEEN_SSIM):
        return WORDS[1]
    if coarse >= TEXTURE_COARSE:
        return WORDS[2]
    return WORDS[3] if coarse >= DETAIL_COARSE else WORDS[4]

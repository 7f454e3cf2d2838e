"""What values become in a format: the arithmetic of quantization, in plain PyTorch.

Every function takes values whose last side is that of the layer's input and returns them as the
format holds them, in their own dtype. Kernels compute with the same values; they only sum them up
faster.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch

from .formats import FP8, INT8, MXFP8, NVFP4

INT8_MOST, FP8_MOST, FP4_MOST = 127.0, 448.0, 6.0
FLOAT8 = torch.float8_e4m3fn
FP4_BETWEEN = (0.25, 0.75, 1.25, 1.75, 2.5, 3.5, 5.0)
FP4_VALUES = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0)
"""What four bits can say (E2M1), and the middles between."""
ROTATIONS = (256, 64, 16)
"""Sizes of the host's Hadamard rotations (ConvRot)."""
ALPHA = 0.5
"""How much of the difficulty goes from activations to weights (SmoothQuant, arXiv 2211.10438)."""

_TINY = 1e-30


def row_scale(x: torch.Tensor, most: float) -> torch.Tensor:
    """The scale of every row ``[…, 1]``, float32, so that its largest value becomes ``most``."""
    return (x.abs().amax(-1, keepdim=True).float() / most).clamp(min=_TINY)


def int8(x: torch.Tensor) -> torch.Tensor:
    """With a scale a row."""
    scale = row_scale(x, INT8_MOST)
    return ((x.float() / scale).round() * scale).to(x.dtype)


def fp8(x: torch.Tensor) -> torch.Tensor:
    """E4M3 with a scale a row."""
    scale = row_scale(x, FP8_MOST)
    return ((x.float() / scale).to(FLOAT8).float() * scale).to(x.dtype)


def _blocks(x: torch.Tensor, size: int) -> torch.Tensor:
    """``[…, blocks, size]``, filled up with zeros."""
    missing = -x.shape[-1] % size
    return torch.nn.functional.pad(x.float(), (0, missing)).unflatten(-1, (-1, size))


def mxfp8(x: torch.Tensor) -> torch.Tensor:
    """E4M3 with a power of two for every 32 values."""
    blocks = _blocks(x, 32)
    needed = (blocks.abs().amax(-1, keepdim=True) / FP8_MOST).clamp(min=2.0**-127)
    scale = torch.exp2(torch.ceil(torch.log2(needed)))
    values = (blocks / scale).to(FLOAT8).float() * scale
    return values.flatten(-2)[..., : x.shape[-1]].to(x.dtype)


def nvfp4(x: torch.Tensor) -> torch.Tensor:
    """E2M1 with an E4M3 scale for every 16 values and one scale for all."""
    blocks = _blocks(x, 16)
    whole = (blocks.abs().amax() / (FP8_MOST * FP4_MOST)).clamp(min=_TINY)
    scale = blocks.abs().amax(-1, keepdim=True) / FP4_MOST / whole
    scale = scale.clamp(max=FP8_MOST).to(FLOAT8).float() * whole
    parts = torch.where(scale == 0, torch.zeros_like(blocks), blocks / scale.clamp(min=_TINY))
    between = torch.tensor(FP4_BETWEEN, device=x.device)
    levels = torch.tensor(FP4_VALUES, device=x.device)[torch.bucketize(parts.abs(), between)]
    values = torch.copysign(levels, parts) * scale
    return values.flatten(-2)[..., : x.shape[-1]].to(x.dtype)


ROUNDING: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    INT8: int8,
    FP8: fp8,
    MXFP8: mxfp8,
    NVFP4: nvfp4,
}


@cache
def hadamard(size: int) -> torch.Tensor:
    """The host's symmetric orthogonal matrix of ones and minus ones, over its root."""
    four = torch.ones(4, 4) - 2 * torch.eye(4).flip(0)
    matrix = four
    while len(matrix) < size:
        matrix = torch.kron(matrix, four)
    return matrix / size**0.5


def rotation_for(columns: int) -> int:
    """The largest rotation that a layer's input has room for, 0 for none."""
    return next((size for size in ROTATIONS if columns % size == 0), 0)


def rotated(x: torch.Tensor, size: int) -> torch.Tensor:
    """Groups of ``size`` values mixed with each other; twice is as before, and 0 is not at all."""
    if not size:
        return x
    matrix = hadamard(size).to(x)
    return (x.unflatten(-1, (-1, size)) @ matrix).flatten(-2)


def smoothing(activations: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """What every channel of the input is divided by, and every column of the weight times.

    Powers of two, so that dividing itself is exact in every dtype.

    Parameters
    ----------
    activations
        The largest absolute value of every channel that was seen, ``[in]``.
    weight
        ``[out, in]``
    """
    columns = weight.abs().amax(0).float().clamp(min=_TINY)
    wanted = activations.float().clamp(min=_TINY) ** ALPHA / columns ** (1 - ALPHA)
    powers = torch.log2(wanted).round().clamp(-12, 12)
    seen = (activations > 0) & (weight.abs().amax(0) > 0)
    return torch.where(seen, torch.exp2(powers), torch.ones_like(powers))

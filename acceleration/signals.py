"""Looking at residuals without waiting for the device or reading all of them."""

from __future__ import annotations

import math

import torch

MOST_ELEMENTS = 1 << 20
"""Of a signal, per batch item. The hidden state of a video is a hundred times as large; reading it
all, and keeping it for three evaluations, cost more than the first block itself (measured on an
H200), and inner products of a million numbers are as good."""


def thinned(signal: torch.Tensor) -> torch.Tensor:
    """Evenly spaced tokens of a signal ``[B, …, D]`` (or packed ``[L, D]``).

    Returns ``[B, tokens, D]`` or ``[tokens, D]``: a copy, which lets go of the rest, or the signal
    itself where it is small.
    """
    tokens = signal.flatten(1, -2) if signal.ndim > 3 else signal
    per_item = tokens[0].numel() if tokens.ndim > 2 else tokens.numel()
    every = -(-per_item // MOST_ELEMENTS)
    if every == 1:
        return signal
    # Rows of pictures are mostly of even length; an odd stride meets all of their columns.
    every += 1 - every % 2
    return (tokens[:, ::every] if tokens.ndim > 2 else tokens[::every]).clone()


def finite_or(value: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """``value``, with ``other`` written into it where it is infinite or no number.

    Half precision ends at 65504, which a difference times a few reaches.
    """
    return torch.where(value.abs() < math.inf, value, other, out=value)

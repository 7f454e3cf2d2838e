"""Looking at residuals without reading all of them or waiting for the device."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

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


def relative_change(now: torch.Tensor, before: torch.Tensor) -> torch.Tensor:
    """``mean|now - before| / mean|before|``, a scalar on the device of both."""
    return (now - before).abs().mean() / before.abs().mean()


def read(scalars: Sequence[torch.Tensor]) -> list[float]:
    """Scalars of one device as numbers, with one wait for the device."""
    if not scalars:
        return []
    found: list[float] = torch.stack([scalar.float() for scalar in scalars]).tolist()
    return found


Pair = tuple[torch.Tensor, torch.Tensor]
"""A signal now and before."""


class Peers(Protocol):
    """Those who run one evaluation, each a part of it, and must decide alike."""

    @property
    def alone(self) -> bool:
        """Whether there is nobody else."""
        ...

    def changes(self, pairs: Sequence[Pair]) -> list[float]:
        """Relative changes of whole signals."""
        ...

    def summed(self, products: torch.Tensor) -> torch.Tensor:
        """Inner products ``[…, B, …]`` of parts as those of the whole, a batch item each."""
        ...

    def agree(self, ready: bool) -> bool:
        """Whether everybody is ready. All ask in the same order."""
        ...


class Alone:
    """One process that runs whole evaluations."""

    alone = True

    def changes(self, pairs: Sequence[Pair]) -> list[float]:
        """Relative changes, with one wait for the device."""
        return read([relative_change(now, before) for now, before in pairs])

    def summed(self, products: torch.Tensor) -> torch.Tensor:
        return products

    def agree(self, ready: bool) -> bool:
        return ready

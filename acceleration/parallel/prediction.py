"""What an evaluation sends and how long it may take, by formula.

Times are predicted, not measured: ``outside + blocks / N + bytes / bandwidth + calls · latency``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from .layout import shares


def keys_bytes(batch: int, width: int, sizes: Sequence[int], item: int) -> int:
    """Bytes that a rank hands to others in one attention call: its keys and values, to everybody.

    Parameters
    ----------
    width
        Heads times head size of keys (and of values).
    sizes
        Tokens of every rank; parts are padded to the longest.
    item
        Bytes of an element.
    """
    return 2 * batch * max(sizes) * width * item * (len(sizes) - 1)


def ulysses_bytes(
    rank: int, batch: int, heads: int, size: int, sizes: Sequence[int], item: int
) -> int:
    """Bytes that a rank hands to others in one attention call: query, key and value of the others'
    heads, then the result of its own heads for the others' tokens.

    ``size`` is that of one head.
    """
    mine, own = shares(heads, len(sizes))[rank], sizes[rank]
    there = 3 * own * (heads - mine)
    back = (sum(sizes) - own) * mine
    return batch * size * item * (there + back)


def gather_bytes(batch: int, width: int, sizes: Sequence[int], item: int) -> int:
    """Bytes that a rank hands to others when an evaluation ends: its part of the image stream.

    ``sizes`` are image tokens by rank, ``width`` is that of the stream.
    """
    return batch * max(sizes) * width * item * (len(sizes) - 1)


class Measured(NamedTuple):
    """One evaluation on one GPU, and what connects several."""

    blocks: float
    """Seconds in the blocks."""
    outside: float
    """Seconds outside of them."""
    bandwidth: float
    """Bytes a second between two ranks."""
    latency: float
    """Seconds that each exchange costs beside its bytes."""


def predicted_seconds(one: Measured, ranks: int, sent: int, calls: int) -> float:
    """Predicted seconds of one evaluation on ``ranks`` GPUs."""
    return one.outside + one.blocks / ranks + sent / one.bandwidth + calls * one.latency

"""What a skipped evaluation costs."""

from __future__ import annotations

from typing import Any

from ..families import Structure

FIRST_BLOCKS = 1
"""How many blocks always run where evaluations are planned."""

PER_PROMPT = ("time", "t_embed", "guidance", "vector", "y_embed", "text", "txt", "context", "cap_")
"""In names of modules outside the blocks: they work on a prompt or a time, a few tokens at most."""


def skipped_cost(structure: Structure, network: Any) -> float:
    """What a skipped evaluation costs, as a share of a computed one.

    Estimated from the parameters that are still used on every token: those of the first block and
    of what is outside the blocks. They are counted, not timed, so that a run can be repeated.
    """
    blocks = [block for _, block in structure.blocks(network)]
    size = [sum(p.numel() for p in block.parameters()) for block in blocks]
    inside = {id(p) for block in blocks for p in block.parameters()}
    outside = sum(
        p.numel()
        for name, p in network.named_parameters()
        if id(p) not in inside and not any(part in name for part in PER_PROMPT)
    )
    total = sum(size) + outside
    return 1.0 - sum(size[FIRST_BLOCKS:]) / total if total else 0.0

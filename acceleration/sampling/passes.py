"""One call of the network: which blocks play which part, and what is held meanwhile."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Any

import torch

from ..families.base import HIDDEN_STATE, IMAGE, TEXT, Family, Tap
from ..forecasts.forecast import Streams


@dataclass(frozen=True)
class BlockPlan:
    """Which blocks play which part: ``[0, first)`` always run, ``[first, last]`` may be skipped."""

    first: int
    last: int
    kept: tuple[str, ...] = (IMAGE,)
    """Streams that are read after the skipped blocks; the others need no residual."""

    @classmethod
    def of(
        cls, family: Family, block_count: int, first_blocks: int, last_blocks: int
    ) -> BlockPlan | None:
        """The plan for a network, or None when no block is left to skip."""
        last = block_count - last_blocks - 1
        if first_blocks > last or last == 0:
            return None
        has_text = any(TEXT in stack.inputs for stack in family.stacks)
        text = (TEXT,) if last_blocks and has_text else ()
        return cls(first_blocks, last, family.results + text)


class BlockSkipped(Exception):  # noqa: N818 - a way out, not an error
    """Leaves the first block once its tapped input has decided that it need not run."""


@dataclass(frozen=True)
class TapPoint:
    """A tap and the submodule that it reads on this network."""

    tap: Tap = HIDDEN_STATE
    module: torch.nn.Module | None = None


Shapes = dict[str, torch.Size]
"""Of the streams that a residual is added to."""

Decide = Callable[["Look"], "Streams | None"]
"""Told what the first blocks show: the residual to put in place, or None to compute."""


Outliving = Callable[[], AbstractContextManager[Any]]
"""Opens the context in which tensors are made that are there until the network has returned or
longer: the host may lay out by itself what a network allocates."""


class Abandoned(Exception):  # noqa: N818 - a way out
    """Something of ours went wrong at a gate; what it was is its cause."""


@dataclass(frozen=True)
class Look:
    """What one call of the network shows before it is decided."""

    signal: torch.Tensor
    """What a policy goes by: the first blocks' residual, or what the tap reads."""
    track: torch.Tensor
    """What tells pictures apart: the same, or the hidden state where the tap reads no picture."""
    hidden: torch.Size
    """Shape of the hidden state as it entered the first block."""
    shapes: Shapes
    must_run: bool


@dataclass
class Pass:
    """One call of the network. Blocks and host write in place, so its tensors are clones."""

    entry: Streams | None = None
    before: torch.Tensor | None = None
    base: Streams | None = None
    restored: Streams | None = None
    tokens: dict[str, int] = field(default_factory=lambda: {IMAGE: 0, TEXT: 0})
    must_run: bool = False
    hidden_shape: torch.Size | None = None
    first: torch.Tensor | None = None
    """The first block's residual on the image stream, where that is watched."""
    output: torch.Tensor | None = None
    """A copy of the image stream after the last skippable block, where it was computed and is
    watched."""
    signal: torch.Tensor | None = None
    residual: Streams | None = None
    returned: bool = False
    ended: bool = False
    """Whether the last gate was reached."""

    @property
    def skipped(self) -> bool:
        """Whether the decision was to reuse."""
        return self.restored is not None

    @property
    def holds(self) -> bool:
        """Whether tensors of ours are held."""
        held = (self.entry, self.before, self.base, self.restored, self.signal, self.residual)
        return any(tensors is not None for tensors in held)

    @property
    def lost(self) -> bool:
        """Whether blocks were handed through but the last gate was never reached."""
        return self.skipped and not self.returned

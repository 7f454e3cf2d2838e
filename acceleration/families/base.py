"""The vocabulary in which families are described.

A transformer is a sequence of block *stacks*, each a ModuleList. A block takes and returns hidden
states in *streams*: ``image`` (all that becomes picture, video or audio), ``text`` (the prompt's
tokens where blocks transform them too), or ``joined`` (one tensor, text tokens first).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

IMAGE, TEXT, JOINED = "image", "text", "joined"


@dataclass(frozen=True)
class BlockStack:
    """One ModuleList of like blocks.

    Parameters
    ----------
    path
        Attribute of the network, such as ``"double_blocks"``.
    inputs
        Stream → (keyword, position) of the block's argument. A block may be called either way.
    outputs
        Streams in the order in which the block returns them; one stream means a bare tensor.
    """

    path: str
    inputs: Mapping[str, tuple[str, int]]
    outputs: tuple[str, ...]

    def read_input(self, stream: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """The argument that carries a stream, however it was passed."""
        keyword, position = self.inputs[stream]
        return kwargs[keyword] if keyword in kwargs else args[position]

    def read_output(self, stream: str, output: Any) -> Any:
        """The returned tensor of a stream."""
        return output if len(self.outputs) == 1 else output[self.outputs.index(stream)]

    def pack_output(self, streams: Mapping[str, torch.Tensor]) -> Any:
        """A block's return value made of streams."""
        values = tuple(streams[name] for name in self.outputs)
        return values[0] if len(values) == 1 else values

    @property
    def is_joined(self) -> bool:
        """Whether text and image tokens are one tensor here."""
        return JOINED in self.inputs


@dataclass(frozen=True)
class Family:
    """One family of diffusion transformers.

    Parameters
    ----------
    name
        The family's usual name.
    classes
        Names of the host's network classes, ``"package.module.Class"``, subclasses included.
    stacks
        Block stacks in the order in which they run.
    is_video
        Whether samples have a time axis (residuals are then much larger).
    """

    name: str
    classes: tuple[str, ...]
    stacks: tuple[BlockStack, ...]
    is_video: bool = False


@dataclass(frozen=True)
class Structure:
    """A family as found on one network.

    ``counts`` holds the number of blocks of each stack; ``source`` says how it was found.
    """

    family: Family
    counts: tuple[int, ...]
    source: str = "known family"
    notes: tuple[str, ...] = field(default=())

    @property
    def block_count(self) -> int:
        """Number of blocks of all stacks."""
        return sum(self.counts)

    def blocks(self, network: Any) -> list[tuple[BlockStack, torch.nn.Module]]:
        """Every block with its stack, in running order, as they are in the network now."""
        return [
            (stack, block) for stack in self.family.stacks for block in getattr(network, stack.path)
        ]

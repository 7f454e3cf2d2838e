"""Which layers become quantized, and which stay."""

from __future__ import annotations

import fnmatch
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from ..families import Structure
from ..families.base import blocks_at
from .formats import INT8

MULTIPLE = 8
"""Sides of a weight that int8 kernels take are multiples of this."""

MODULATION = re.compile(r"(^|[._])(\w*mod|\w*modulation|ada_?ln\w*|scale_shift\w*)([._]|$)", re.I)
"""Names of layers that make scales, shifts and gates of the time step."""


@dataclass(frozen=True)
class Layer:
    """A linear layer of a network."""

    path: str
    rows: int
    columns: int
    """Of its weight ``[rows, columns]``."""
    dtype: torch.dtype
    modulation: bool = False
    """Whether it works on the time step and not on tokens."""

    @property
    def bytes(self) -> int:
        """Of its weight as it is."""
        return self.rows * self.columns * self.dtype.itemsize

    def format_for(self, wanted: str) -> str:
        """Modulation is large and computed once an evaluation: 8 bits save its memory."""
        return INT8 if self.modulation else wanted


def is_linear(module: Any) -> bool:
    """Whether a module is a linear layer with a plain weight."""
    weight = getattr(module, "weight", None)
    return (
        type(module).__name__ == "Linear"
        and isinstance(weight, torch.Tensor)
        and weight.ndim == 2
        and weight.is_floating_point()
    )


def linear_layers(network: Any, structure: Structure | None) -> list[Layer]:
    """The linear layers within a network's blocks, in the order of its modules.

    What lies outside (embedders, time step and guidance, the final layer) is small and sensitive
    and stays. Of a network that no family describes, blocks are what lies in a list of modules.
    """
    inside = _inside_blocks(network, structure)
    return [
        Layer(
            path,
            module.weight.shape[0],
            module.weight.shape[1],
            module.weight.dtype,
            bool(MODULATION.search(path)),
        )
        for path, module in network.named_modules()
        if is_linear(module) and id(module) in inside
    ]


def _inside_blocks(network: Any, structure: Structure | None) -> set[int]:
    if structure is not None:
        paths = [stack.path for stack in structure.family.stacks]
        paths += [side.path for side in structure.family.side]
        blocks = [block for path in paths for block in blocks_at(network, path)]
    else:
        lists = (m for m in network.modules() if isinstance(m, torch.nn.ModuleList))
        blocks = [block for found in lists for block in found]
    return {id(module) for block in blocks for module in block.modules()}


def why_kept(layer: Layer, patterns: Iterable[str]) -> str:
    """Why a layer cannot or must not be quantized; empty when it may."""
    if layer.rows % MULTIPLE or layer.columns % MULTIPLE:
        return f"its size {layer.rows} x {layer.columns} is no multiple of {MULTIPLE}"
    found = next((p for p in patterns if _is_meant(layer.path, p)), None)
    return f"kept by {found}" if found else ""


def _is_meant(path: str, pattern: str) -> bool:
    """Whether a pattern is the path, or a part of it between dots."""
    return any(fnmatch.fnmatchcase(path, form) for form in _forms(pattern))


def _forms(pattern: str) -> Iterator[str]:
    yield from (pattern, f"*.{pattern}", f"{pattern}.*", f"*.{pattern}.*")


def kept_for(structure: Structure | None, wanted: str) -> Sequence[str]:
    """What a family keeps in a format, as patterns."""
    if structure is None:
        return ()
    return [p for kept in structure.family.exact if wanted in kept.formats for p in kept.patterns]

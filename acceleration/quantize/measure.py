"""How much a layer loses in a format, and in which basis it loses least."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch

from .formats import FORMATS, INT8
from .layers import Layer
from .rounding import ROUNDING, rotated, rotation_for, smoothing

MOST_ROWS = 256
"""Rows of a layer's input that are kept to measure with."""


@dataclass
class Seen:
    """What went into a layer while a few steps were sampled."""

    maxima: torch.Tensor
    """The largest absolute value of every channel ``[in]``."""
    rows: torch.Tensor
    """Some of the rows ``[n, in]``."""

    @classmethod
    def of(cls, x: torch.Tensor, most: int) -> Seen:
        """Of an input ``[…, in]``: rows spread over it, and the one with the largest value."""
        rows = x.detach().reshape(-1, x.shape[-1])
        largest = rows.abs().amax(1).argmax()[None]
        spread = torch.arange(0, len(rows), max(len(rows) // most, 1), device=rows.device)[:most]
        return cls(rows.abs().amax(0).float(), rows[torch.cat([largest, spread])].clone())

    def add(self, other: Seen) -> None:
        """What went in at another time, too."""
        self.maxima = torch.maximum(self.maxima, other.maxima)
        self.rows = torch.cat([self.rows, other.rows])[-MOST_ROWS:]


@dataclass(frozen=True)
class Choice:
    """What a layer becomes."""

    layer: Layer
    format: str
    rotation: int = 0
    """Size of the groups of channels that are mixed, 0 for none."""
    smooth: torch.Tensor | None = None
    """What the channels of the input are divided by ``[in]``, or None."""
    local: float = 0.0
    """Relative error (L2) of the layer's own output, or of its weight if no input was seen."""
    error: float | None = None
    """Relative error of what the whole model predicts, if only this layer is quantized."""

    @property
    def bytes(self) -> int:
        """Of the weight with all that belongs to it."""
        size = FORMATS[self.format].bytes(self.layer.rows, self.layer.columns)
        return size + (0 if self.smooth is None else 4 * self.layer.columns)

    @property
    def basis(self) -> str:
        """For people: what was done before rounding."""
        done = ["smoothed"] if self.smooth is not None else []
        return ", ".join([*done, *([f"rotated {self.rotation}"] if self.rotation else [])])


def rounded_weight(weight: torch.Tensor, choice: Choice) -> torch.Tensor:
    """A weight ``[out, in]`` in the basis and with the values that it has as a choice."""
    if choice.smooth is not None:
        weight = weight * choice.smooth.to(weight)
    return ROUNDING[choice.format](rotated(weight, choice.rotation))


def output(
    x: torch.Tensor, weight: torch.Tensor, choice: Choice, activations: bool = True
) -> torch.Tensor:
    """What a quantized layer gives, without its bias.

    Parameters
    ----------
    x
        ``[…, in]``
    weight
        As ``rounded_weight`` made it.
    activations
        Whether they are rounded, too.
    """
    if choice.smooth is not None:
        x = x / choice.smooth.to(x)
    x = rotated(x, choice.rotation)
    return (ROUNDING[choice.format](x) if activations else x) @ weight.to(x.dtype).T


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative error (L2)."""
    return float((found.float() - exact.float()).norm() / exact.float().norm().clamp(min=1e-20))


def best(
    layer: Layer, wanted: str, weight: torch.Tensor, seen: Seen | None, activations: bool = True
) -> Choice:
    """The basis in which a layer loses least in a format; only int8 has more than one.

    Parameters
    ----------
    weight
        ``[out, in]``
    seen
        What went into the layer. Without it nothing is smoothed, and the weight alone is measured.
    activations
        Whether the device rounds them, too.
    """
    weight = weight.float()
    plain = Choice(layer, wanted)
    bases = [plain]
    rotation = rotation_for(layer.columns) if wanted == INT8 else 0
    if wanted == INT8 and seen is not None:
        smooth = smoothing(seen.maxima.to(weight.device), weight)
        if bool((smooth != 1).any()):
            bases.append(replace(plain, smooth=smooth.cpu()))
    if rotation:
        bases += [replace(basis, rotation=rotation) for basis in bases]
    if seen is None:
        x = torch.eye(layer.columns, device=weight.device)[:MOST_ROWS]
        activations = False
    else:
        x = seen.rows.to(weight.device, torch.float32)
    exact = x @ weight.T

    def lost(basis: Choice) -> float:
        return relative(output(x, rounded_weight(weight, basis), basis, activations), exact)

    return min((replace(basis, local=lost(basis)) for basis in bases), key=lambda c: c.local)

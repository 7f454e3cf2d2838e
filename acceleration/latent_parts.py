"""Which numbers of a latent are which part of it, where it holds several.

The host packs a latent of several parts, such as picture and sound, flat: ``[B, 1, N]``, one part
behind the other. The sampler moves all of it by one list of sigmas, whatever noise is in a part. A
network that runs a part on a noise schedule of its own says so by scaling what it returns for that
part (see ``LatentPart``).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any

import torch

from .families import Family, LatentPart, OwnNoise

UNDESCRIBED = Family("", (), ())


@dataclass(frozen=True)
class Noisy:
    """What one evaluation of the host's model was given.

    Parameters
    ----------
    x
        The sample as the sampler has it, ``[B, C, …]`` or packed ``[B, 1, N]``.
    shapes
        Shape of every part ``[B, C, …]``, in order; one or none for a latent that is one tensor.
    options
        The evaluation's ``transformer_options``.
    """

    x: torch.Tensor
    shapes: Sequence[Sequence[int]] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Stretch:
    """Parts that lie side by side and have the same noise.

    ``length`` counts numbers a batch item. ``noise`` is None where it is the sampler's, and means
    nothing where it is not ``known``.
    """

    names: tuple[str, ...]
    length: int
    noise: OwnNoise | None = None
    known: bool = True


def stretches_of(noisy: Noisy | None, family: Family | None, network: Any) -> tuple[Stretch, ...]:
    """The stretches of a latent, in order; none where all of it is one tensor or has one noise.

    Of a latent whose parts nobody described only the first is taken to have the sampler's noise.
    """
    shapes = (noisy.shapes if noisy is not None else None) or ()
    if noisy is None or len(shapes) < 2:
        return ()
    lengths = [math.prod(shape[1:]) for shape in shapes]
    if noisy.x.ndim != 3 or sum(lengths) != noisy.x.shape[-1]:
        return (Stretch(("latent",), noisy.x.shape[-1], known=False),)
    described = (family or UNDESCRIBED).parts or (LatentPart("first part"),)
    rest = [LatentPart(f"part {i + 1}", known=False) for i in range(len(described), len(shapes))]
    plain = getattr(network, "_orig_mod", network)
    stretches = []
    for part, length in zip((*described, *rest), lengths, strict=False):
        noise = part.noise(plain, noisy.options) if part.noise is not None else None
        stretches.append(Stretch((part.name,), length, noise, part.known))
    joined = [_join(list(same)) for _, same in groupby(stretches, lambda s: (s.noise, s.known))]
    return () if joined == [Stretch(joined[0].names, sum(lengths))] else tuple(joined)


def _join(stretches: list[Stretch]) -> Stretch:
    names = tuple(name for stretch in stretches for name in stretch.names)
    return Stretch(
        names, sum(stretch.length for stretch in stretches), stretches[0].noise, stretches[0].known
    )


def told(stretches: Sequence[Stretch]) -> str | None:
    """For the report: what is corrected by which noise; None where that is the same for all."""
    groups = {
        "by the sampler's sigmas": [s for s in stretches if s.known and s.noise is None],
        "by own sigmas": [s for s in stretches if s.known and s.noise is not None],
        "not, as their sigmas are not known": [s for s in stretches if not s.known],
    }
    found = [
        f"{' and '.join(name for stretch in members for name in stretch.names)} {how}"
        for how, members in groups.items()
        if members
    ]
    return f"the corrector works on {', '.join(found)}" if found else None

"""Noise that means the same at two sizes.

A latent of N values an axis and its low corner in the orthonormal DCT-II (``corner``) differ by the
ratio r of their sides: white noise keeps its strength there, the picture becomes r times stronger.
So a small latent has the noise of a later moment, and scaled right it is exactly what the model
expects at that moment.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TypeVar

import torch

Number = TypeVar("Number", float, torch.Tensor)


@dataclass(frozen=True)
class Kind:
    """How a model mixes picture and noise.

    Parameters
    ----------
    name
        For people.
    flow
        Whether a sample is ``(1 - σ) x0 + σ ε`` (flow matching); else it is ``x0 + σ ε``.
    """

    name: str
    flow: bool

    def share(self, sigma: float) -> float:
        """The share of noise in a sample, 0 to 1: σ of a flow model at the same moment."""
        return sigma if self.flow else sigma / (1.0 + sigma)

    def sigma(self, share: float) -> float:
        """The σ at which a sample has this share of noise, less than 1."""
        return share if self.flow else share / (1.0 - share)

    def matched(self, sigma: Number, ratio: float) -> Number:
        """σ of the low corner of a sample that has σ.

        Parameters
        ----------
        sigma
            A number or a tensor of them. What lies beyond pure noise (σ > 1 of a flow model) stays.
        ratio
            Side of the sample divided by side of the corner; with two, their geometric mean.

        Notes
        -----
        ``x0 + σ ε`` has a corner ``r x0' + σ ε'``, and ``x0' + (σ / r) ε'`` after division by r.
        In flow models ``σ / (1 - σ)`` takes the place of σ.
        """
        if not self.flow:
            return sigma / ratio
        if isinstance(sigma, torch.Tensor):
            inside = sigma.clamp(max=1.0)
            return torch.where(sigma > 1.0, sigma, inside / (ratio - (ratio - 1.0) * inside))
        return sigma if sigma > 1.0 else sigma / (ratio - (ratio - 1.0) * sigma)


FLOW = Kind("flow matching", True)
VARIANCE = Kind("variance exploding", False)

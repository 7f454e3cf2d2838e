"""Gives back what skipped evaluations got wrong, once the next computed one shows it.

Along a sampling run the model gives a velocity at every step, and the sampler adds them up, each
times the width of its step. A skipped evaluation's velocity is a forecast beyond the last computed
one. When the next is computed, the skipped ones lie between two that are known, and interpolation
is much better than forecasting was: for evenly spaced steps the error of the sum falls from 5/12 to
1/12 of a step's curvature, as from an Adams-Bashforth to an Adams-Moulton formula (the corrector of
a predictor-corrector method; Hairer, Nørsett, Wanner, Solving Ordinary Differential Equations I,
III.1). The difference is put into the velocity of the computed step, so the sampler itself makes it
good, and the host's sampler stays as it is.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch

SAMPLERS = ("euler", "heun", "heunpp2")
"""Samplers that take one evaluation a step and add ``velocity x width``; the names of the host."""

NARROW = 1e-6
"""A step of less width than this (in sigma) cannot give anything back."""


@dataclass
class Corrector:
    """What one branch owes, in the units of its latent ``[B, C, …]``.

    ``velocity = (sample - denoised) / sigma``, for every kind of model prediction.
    """

    order: int = 2
    """Degree of the interpolation, over as many computed evaluations and one more."""
    _known: list[tuple[float, torch.Tensor]] = field(default_factory=list)
    """Places and velocities of the last computed evaluations."""
    _gap: list[tuple[float, float]] = field(default_factory=list)
    """Places and widths of the skipped evaluations since."""
    _spent: torch.Tensor | None = None
    """Sum of their velocities times their widths."""

    def skipped(
        self, sigma: float, target: float, sample: torch.Tensor, denoised: torch.Tensor
    ) -> None:
        """Note a skipped evaluation of the step from ``sigma`` to ``target``."""
        if not self._known or sigma <= 0:
            return
        width = target - sigma
        spent = (sample - denoised).mul_(width / sigma)
        self._spent = spent if self._spent is None else self._spent.add_(spent)
        self._gap.append((sigma, width))

    def computed(
        self, sigma: float, target: float, sample: torch.Tensor, denoised: torch.Tensor
    ) -> torch.Tensor:
        """Note a computed evaluation and return what the sampler shall take for it.

        ``denoised`` itself where nothing was skipped before.
        """
        if sigma <= 0:
            return denoised
        width = target - sigma
        velocity = (sample - denoised).div_(sigma)
        self._known = [k for k in self._known if k[0] != sigma][-self.order :]
        self._known.append((sigma, velocity))
        if self._spent is None or abs(width) < NARROW:
            return denoised
        owed = self._spent.neg_()
        for weight, (_, known) in zip(self._weights(), self._known, strict=True):
            owed.add_(known, alpha=weight)
        self._gap.clear()
        self._spent = None
        return denoised - owed.mul_(sigma / width)

    def _weights(self) -> list[float]:
        """Weights of the known velocities in the sum over the gap."""
        places = [place for place, _ in self._known]
        rows = [[width * one for one in interpolation(places, place)] for place, width in self._gap]
        return [sum(column) for column in zip(*rows, strict=True)]

    def forget(self) -> None:
        """Owe nothing and know nothing."""
        self._known.clear()
        self._gap.clear()
        self._spent = None

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor kept."""
        return [v for _, v in self._known] + ([self._spent] if self._spent is not None else [])


def interpolation(places: Sequence[float], at: float) -> list[float]:
    """Lagrange's weights of values known at ``places`` for the value ``at`` another."""
    weights = []
    for i, here in enumerate(places):
        weight = 1.0
        for j, other in enumerate(places):
            if i != j:
                weight *= (at - other) / (here - other)
        weights.append(weight)
    return weights

"""Gives back what skipped evaluations got wrong, once the next computed one shows it.

A step from sigma σ to τ leads from a sample x to ``x τ/σ + (1 - τ/σ) D``, with D the denoised
result. So x/σ is a sum of the results, each times ``1/τ - 1/σ``. A skipped evaluation's result is a
forecast beyond the last computed one. When the next is computed, the skipped ones lie between two
that are known, and interpolation is much better than forecasting was: for evenly spaced steps the
error of the sum falls from 5/12 to 1/12 of a step's curvature, as from an Adams-Bashforth to an
Adams-Moulton formula (the corrector of a predictor-corrector method; Hairer, Nørsett, Wanner,
Solving Ordinary Differential Equations I, III.1). The difference is put into the result of the
computed evaluation, so that the sampler itself makes it good, and the host's sampler stays as it
is.

The same with velocities ``(x - D)/σ``, which x is a sum of, was tried on the demo models: as good
for a whole picture, but worse with masks, with part of the noise and with samplers that look back.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

SAMPLERS = ("euler", "heun", "heunpp2", "dpmpp_2m", "res_multistep")
"""Samplers that gain by this on both demo models; the names of the host. Ancestral, SDE and
predictor-corrector ones lose or gain nothing."""

SAME = 1e-5
"""Sigmas nearer than this share of them are one place."""


@dataclass
class Corrector:
    """What one branch owes, in the units of its latent ``[B, C, …]``."""

    _known: tuple[float, torch.Tensor] | None = None
    """Sigma and result of the last computed evaluation."""
    _gap: list[tuple[float, float]] = field(default_factory=list)
    """Sigmas and weights of the skipped evaluations since."""
    _spent: torch.Tensor | None = None
    """Sum of their results times their weights."""

    def skipped(self, sigma: float, target: float, denoised: torch.Tensor) -> None:
        """Note the result of a skipped evaluation of the step from ``sigma`` to ``target``."""
        if self._known is None or not sigma > target > 0:
            return
        weight = 1.0 / target - 1.0 / sigma
        spent = denoised * weight
        self._spent = spent if self._spent is None else self._spent.add_(spent)
        self._gap.append((sigma, weight))

    def computed(self, sigma: float, target: float, denoised: torch.Tensor) -> torch.Tensor:
        """Note the result of a computed evaluation; returns what the sampler shall take for it.

        The very tensor that was given where nothing is owed, and in a step that ends without noise:
        that goes straight to the result.
        """
        if self._spent is not None and abs(sigma - target) <= SAME * sigma:
            return denoised  # a step that leads nowhere cannot give anything back
        owed = self._owed(sigma, denoised)
        self._known = (sigma, denoised.clone())
        if owed is None or not sigma > target > 0:
            return denoised
        return denoised + owed.div_(1.0 / target - 1.0 / sigma)

    def _owed(self, sigma: float, denoised: torch.Tensor) -> torch.Tensor | None:
        """What interpolation makes of the gap, less what was made of it."""
        spent, gap = self._spent, self._gap
        self._spent, self._gap = None, []
        if spent is None or self._known is None:
            return None
        before, known = self._known
        # Schedules may rise again; what does not lie between the two is not interpolated.
        if before - sigma <= SAME * before or not all(before >= at >= sigma for at, _ in gap):
            return None
        ahead = sum(weight * (before - at) / (before - sigma) for at, weight in gap)
        whole = sum(weight for _, weight in gap)
        return (known * (whole - ahead)).add_(denoised, alpha=ahead).sub_(spent)

    def forget(self) -> None:
        """Owe nothing and know nothing."""
        self._known, self._gap, self._spent = None, [], None

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor kept."""
        kept = (self._known[1] if self._known is not None else None, self._spent)
        return [tensor for tensor in kept if tensor is not None]

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

A sampler that looks back (a linear multistep method) steps by ``(1 + a) D - a D'``, with D' the
result before and a its share. What it was given for D' includes what was given back, so the next
result is given such that the step is by the results themselves.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

LookBack = Callable[[float, float], float]
"""A sampler's share a, from the widths of the step before and of this one in ``-log σ``."""


def _dpmpp_2m(before: float, here: float) -> float:
    """DPM-Solver++(2M), arXiv 2211.01095, algorithm 2."""
    return here / before / 2


def _res_multistep(before: float, here: float) -> float:
    """The second-order exponential multistep method of arXiv 2308.02157."""
    phi = -math.expm1(-here) / here
    return (1 - phi) / (phi * before)


SAMPLERS: dict[str, LookBack | None] = {
    "euler": None,
    "heun": None,
    "heunpp2": None,
    "dpmpp_2m": _dpmpp_2m,
    "res_multistep": _res_multistep,
}
"""Samplers that gain by this on both demo models, by the host's names, and how they look back.
Ancestral, SDE and predictor-corrector ones lose or gain nothing."""

SAME = 1e-5
"""Sigmas nearer than this share of them are one place."""

REPLACED = 0.5
"""How far the forecast that a sampler looks back at is replaced by interpolation. 1 is what its
formula asks for and better with few evaluations, 0 is better with many; on both demo models half is
better than either."""


@dataclass
class Corrector:
    """What one branch owes, in the units of its latent ``[B, C, …]``.

    Parameters
    ----------
    look_back
        Of the sampler; None where it does not.
    """

    look_back: LookBack | None = None
    _known: tuple[float, torch.Tensor] | None = None
    """Sigma and result of the last computed evaluation."""
    _gap: list[tuple[float, float, float]] = field(default_factory=list)
    """Sigmas, weights and shares of the skipped evaluations since."""
    _spent: torch.Tensor | None = None
    """What the sampler stepped by in them, times their weights."""
    _before: tuple[float, torch.Tensor] | None = None
    """Sigma and result of the evaluation before, for samplers that look back."""
    _excess: torch.Tensor | None = None
    """How much more than that result the sampler was given."""

    def skipped(self, sigma: float, target: float, denoised: torch.Tensor) -> torch.Tensor:
        """Note the result of a skipped evaluation of the step from ``sigma`` to ``target``.

        Returns what the sampler shall take for it.
        """
        if self._known is None or not sigma > target > 0:
            return denoised
        weight, share = 1.0 / target - 1.0 / sigma, self._share(sigma, target)
        spent = denoised * (weight * (1 + share))
        if share and self._before is not None:
            spent.sub_(self._before[1], alpha=weight * share)
        self._spent = spent if self._spent is None else self._spent.add_(spent)
        self._gap.append((sigma, weight, share))
        return self._given(sigma, denoised, share, None)

    def computed(self, sigma: float, target: float, denoised: torch.Tensor) -> torch.Tensor:
        """Note the result of a computed evaluation; returns what the sampler shall take for it.

        The very tensor that was given where nothing is owed, and in a step that ends without noise:
        that goes straight to the result.
        """
        if self._spent is not None and abs(sigma - target) <= SAME * sigma:
            return denoised  # a step that leads nowhere cannot give anything back
        owed = self._owed(sigma, denoised)
        self._known = (sigma, denoised.clone())
        if not sigma > target > 0:
            return denoised
        if owed is not None:
            owed.div_(1.0 / target - 1.0 / sigma)
        return self._given(sigma, denoised, self._share(sigma, target), owed)

    def _share(self, sigma: float, target: float) -> float:
        """The sampler's share of the result before."""
        if self.look_back is None or self._before is None or not self._before[0] > sigma > target:
            return 0.0
        return self.look_back(math.log(self._before[0] / sigma), math.log(sigma / target))

    def _given(
        self, sigma: float, denoised: torch.Tensor, share: float, owed: torch.Tensor | None
    ) -> torch.Tensor:
        """The result for which the sampler steps by its formula and what is owed."""
        given, more = denoised, owed
        if share and self._excess is not None:
            more = self._excess * share if owed is None else owed.add(self._excess, alpha=share)
        if more is not None:
            more = more / (1 + share)
            # Where the sum is no number nothing is given back, then or later; the result stays.
            given = denoised + more
            finite = given.isfinite()
            given, more = torch.where(finite, given, denoised), torch.where(finite, more, 0.0)
        if self.look_back is not None:
            self._before, self._excess = (sigma, denoised.clone()), more
        return given

    def _owed(self, sigma: float, denoised: torch.Tensor) -> torch.Tensor | None:
        """What interpolation makes of the gap, less what was made of it."""
        spent, gap = self._spent, self._gap
        self._spent, self._gap = None, []
        if spent is None or self._known is None:
            return None
        first, known = self._known
        # Schedules may rise again; what does not lie between the two is not interpolated.
        if first - sigma <= SAME * first or not all(first >= at >= sigma for at, *_ in gap):
            return None
        ahead = place = 0.0
        for at, weight, share in gap:
            before, place = place, (first - at) / (first - sigma)
            ahead += weight * ((1 + share) * place - share * before)
        if self._before is not None:
            off = self._before[1] - known.lerp(denoised, place)
            self._excess = (0.0 if self._excess is None else self._excess) + off * REPLACED
        whole = sum(weight for _, weight, _ in gap)
        return (known * (whole - ahead)).add_(denoised, alpha=ahead).sub_(spent)

    def forget(self) -> None:
        """Owe nothing and know nothing."""
        self._known, self._gap, self._spent = None, [], None
        self._before = self._excess = None

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor kept."""
        known, before = (
            kept[1] if kept is not None else None for kept in (self._known, self._before)
        )
        return [t for t in (known, before, self._spent, self._excess) if t is not None]


def leave_parts(
    given: torch.Tensor, denoised: torch.Tensor, lengths: Sequence[int], left: Sequence[bool]
) -> torch.Tensor:
    """What the sampler shall take, with some parts of a flat latent ``[B, 1, N]`` as they came.

    Some networks run a part of the latent, such as the sound beside a picture, on noise of its own.
    The weights above are those of the sampler's sigmas, and would harm it.

    Parameters
    ----------
    lengths
        Numbers of every part, in order.
    left
        Which parts are left alone.
    """
    if given is denoised or not any(left):
        return given
    if denoised.ndim != 3 or sum(lengths) != denoised.shape[-1]:
        return denoised  # another patch has made another latent of it
    pairs = zip(given.split(lengths, -1), denoised.split(lengths, -1), left, strict=True)
    return torch.cat([came if alone else gave for gave, came, alone in pairs], dim=-1)

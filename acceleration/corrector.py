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

A part of the latent may have noise of its own, s(σ) (see ``OwnNoise``). The sampler steps by the
same rule there, so x/σ is the same sum, but D is no smooth function any more: ``D = x - σ s' v``
moves with the schedule even where the model's velocity v stands still. What is smooth is v over s.
So ``D - x`` is kept there instead of D, v is interpolated over s, and every result of the gap gets
its own ``σ s'`` times that, with the samples x as they were. Where all forecasts are exact and v
stands still, nothing is owed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import NamedTuple

import torch

from .families import OwnNoise

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


GIVEN_BACK = 0.5
"""How much of what is owed a part with noise of its own gets. Nobody could measure a trained model
of that kind here. On two kinds of data whose best denoiser has a closed form (normal distributions,
and pairs of narrow peaks), with three plans, all of it won up to 5 dB and lost up to 2; half won up
to 2.5 and lost at most 0.4. On a network of random weights, whose forecasts are better than
interpolation is, all of it lost up to 6 dB and half up to 4."""


@dataclass(frozen=True)
class Place:
    """Where a result lies: the sampler's sigma, the part's own, and what v is multiplied by."""

    sigma: float
    own: float
    factor: float

    def of(self, tensor: torch.Tensor) -> torch.Tensor:
        """The smooth one of a result; the very tensor where that is the result itself."""
        return tensor if self.factor == 1.0 else tensor / self.factor


class Skipped(NamedTuple):
    """A skipped evaluation: its weight in the sum, and the sampler's share of the one before."""

    place: Place
    weight: float
    share: float


@dataclass
class Corrector:
    """What one part of one branch's latent owes, in the units of the latent ``[B, C, …]``.

    Parameters
    ----------
    look_back
        Of the sampler; None where it does not.
    noise
        The part's own; None where it is the sampler's.
    """

    look_back: LookBack | None = None
    noise: OwnNoise | None = None
    _known: tuple[Place, torch.Tensor] | None = None
    """The last computed result. Results are kept less the sample where the noise is its own."""
    _gap: list[Skipped] = field(default_factory=list)
    """The skipped evaluations since."""
    _spent: torch.Tensor | None = None
    """What the sampler stepped by in them, times their weights."""
    _before: tuple[Place, torch.Tensor] | None = None
    """The result of the evaluation before, for samplers that look back."""
    _excess: torch.Tensor | None = None
    """How much more than that result the sampler was given."""

    def skipped(
        self, sigma: float, target: float, denoised: torch.Tensor, x: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Note the result of a skipped evaluation of the step from ``sigma`` to ``target``.

        Returns what the sampler shall take for it. ``x`` is the sample before the step, needed only
        where the noise is the part's own.
        """
        if self._known is None or not sigma > target > 0:
            return denoised
        place, result = self._place(sigma), self._result(denoised, x)
        weight, share = 1.0 / target - 1.0 / sigma, self._share(sigma, target)
        spent = result * (weight * (1 + share))
        if share and self._before is not None:
            spent.sub_(self._before[1], alpha=weight * share)
        self._spent = spent if self._spent is None else self._spent.add_(spent)
        self._gap.append(Skipped(place, weight, share))
        return self._given(place, denoised, result, share, None)

    def computed(
        self, sigma: float, target: float, denoised: torch.Tensor, x: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Note the result of a computed evaluation; returns what the sampler shall take for it.

        The very tensor that was given where nothing is owed, and in a step that ends without noise:
        that goes straight to the result.
        """
        if self._spent is not None and abs(sigma - target) <= SAME * sigma:
            return denoised  # a step that leads nowhere cannot give anything back
        place, result = self._place(sigma), self._result(denoised, x)
        owed = self._owed(place, result)
        self._known = (place, _kept(result, denoised))
        if not sigma > target > 0:
            return denoised
        if owed is not None:
            owed.div_(1.0 / target - 1.0 / sigma)
            if self.noise is not None:
                owed.mul_(GIVEN_BACK)
        return self._given(place, denoised, result, self._share(sigma, target), owed)

    def _place(self, sigma: float) -> Place:
        if self.noise is None:
            return Place(sigma, sigma, 1.0)
        return Place(sigma, self.noise.sigma(sigma), sigma * self.noise.slope(sigma))

    def _result(self, denoised: torch.Tensor, x: torch.Tensor | None) -> torch.Tensor:
        if self.noise is None:
            return denoised
        if x is None:
            raise ValueError("a part with noise of its own is corrected with its sample x")
        return denoised - x

    def _share(self, sigma: float, target: float) -> float:
        """The sampler's share of the result before."""
        if self.look_back is None or self._before is None:
            return 0.0
        before = self._before[0].sigma
        if not before > sigma > target:
            return 0.0
        return self.look_back(math.log(before / sigma), math.log(sigma / target))

    def _given(
        self,
        place: Place,
        denoised: torch.Tensor,
        result: torch.Tensor,
        share: float,
        owed: torch.Tensor | None,
    ) -> torch.Tensor:
        """What makes the sampler step by its formula and by what is owed."""
        more = owed
        if share and self._excess is not None:
            more = self._excess * share if owed is None else owed.add(self._excess, alpha=share)
        given = denoised
        if more is not None:
            more = more / (1 + share)
            # Where the sum is no number nothing is given back, then or later; the result stays.
            given = denoised + more
            finite = given.isfinite()
            given, more = torch.where(finite, given, denoised), torch.where(finite, more, 0.0)
        if self.look_back is not None:
            self._before, self._excess = (place, _kept(result, denoised)), more
        return given

    def _owed(self, here: Place, result: torch.Tensor) -> torch.Tensor | None:
        """What interpolation makes of the gap, less what was made of it."""
        spent, gap = self._spent, self._gap
        self._spent, self._gap = None, []
        if spent is None or self._known is None:
            return None
        first, known = self._known
        # Schedules may rise again; what does not lie between the two is not interpolated.
        if first.sigma - here.sigma <= SAME * first.sigma:
            return None
        if not (first.own > here.own and here.factor > 0):
            return None
        if not all(first.sigma >= skipped.place.sigma >= here.sigma for skipped in gap):
            return None
        share_of_known = share_of_here = along = 0.0
        before = first
        for at, weight, share in gap:
            behind, along = along, (first.own - at.own) / (first.own - here.own)
            # Both are of the smooth ones, which stand in every result at its own factor.
            share_of_here += weight * (
                (1 + share) * along * at.factor - share * behind * before.factor
            )
            share_of_known += weight * (at.factor + share * (at.factor - before.factor))
            before = at
        share_of_known -= share_of_here
        if self._before is not None:
            between = first.of(known).lerp(here.of(result), along)
            off = self._before[1] - (between if before.factor == 1.0 else between * before.factor)
            self._excess = (0.0 if self._excess is None else self._excess) + off * REPLACED
        owed = known * (share_of_known / first.factor)
        return owed.add_(result, alpha=share_of_here / here.factor).sub_(spent)

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


def _kept(result: torch.Tensor, denoised: torch.Tensor) -> torch.Tensor:
    """The result for later: others may write into what the host gave."""
    return result.clone() if result is denoised else result

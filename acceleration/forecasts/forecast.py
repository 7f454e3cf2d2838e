"""What to put in place of the skipped blocks: forecasts of their residual.

A residual is what the skipped blocks add to the hidden state, one tensor a stream. Every forecast
is ``R₁ + Σ aₖ Dₖ``, with R₁ the last computed residual and Dₖ the differences of the last computed
ones, newest first; ``FORECASTS`` says how each finds the weights ``aₖ``. Every policy can use every
forecast; where one is no finite number it is the last residual.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

from ..signals import Alone, Peers, finite_or, thinned
from ..store.residual_store import Kept, ResidualStore, tensors_of

Streams = dict[str, torch.Tensor]

Weights = Sequence["torch.Tensor | float"]
"""One a difference, newest first: ``[B]``, or a number for all of the batch."""

MOST_PROGRESS = 8.0
"""When the last two signals hardly differ their ratio means little; no forecast goes further than
this many times the last difference."""

FIRST_SLOPE = 1.0
"""Positions up to this one make no difference yet for TaylorSeer, as in cache-dit's calibrator."""

RIDGE = 0.5
"""How strongly ``blend`` trusts time against the signal; 0.3 to 1 are about as good on the demo
model, 0 is the trajectory of order 2, very large is TaylorSeer of order 1."""


def taylorseer(position: float, times: Sequence[float], products: torch.Tensor | None) -> Weights:
    """Extrapolation in time (arXiv 2503.06923), with the slopes of cache-dit's calibrator.

    With e the time since the last computed residual, h₁ and h₀ the last two distances between
    computed ones: ``R₁ + e D₁/h₁ + e²/2 (D₁/h₁ - D₂/h₀)/h₁``.
    """
    if times[-1] <= FIRST_SLOPE:
        return []
    ahead, last = position - times[-1], times[-1] - times[-2]
    if len(times) < 3 or times[-2] <= FIRST_SLOPE:
        return [ahead / last]
    bend = ahead**2 / (2 * last)
    return [ahead / last + bend / last, -bend / (times[-2] - times[-3])]


def trajectory(position: float, times: Sequence[float], products: torch.Tensor | None) -> Weights:
    """The progress of the first blocks along their own last differences.

    With r the signal now and r₁, r₀ those of the last two computed evaluations:
    ``a = <r - r₁, r₁ - r₀> / |r₁ - r₀|²``; order 2 takes the least-squares combination of the last
    two differences. Cache trajectory alignment of DiCache (arXiv 2508.17356).
    """
    assert products is not None
    return _least_squares(products[:, 1:, 1:], products[:, 0, 1:])


def blend(position: float, times: Sequence[float], products: torch.Tensor | None) -> Weights:
    """Between extrapolation in time and the progress of the first blocks, over two differences.

    Time alone (TaylorSeer of order 1) gives the weights ``a⁰ = ((t - t₁) / (t₁ - t₀), 0)``. The
    weights used are those near it that best explain the signal's change d by the signals' own
    differences: they minimise ``|d - Σ aₖ Dₖ|² + λ Σ |Dₖ|² (aₖ - a⁰ₖ)²``, a ridge regression with
    a prior. Where the signal says little, time decides; where the signal jumps, it is followed.
    """
    assert products is not None
    ahead = (position - times[-1]) / (times[-1] - times[-2])
    ahead = min(max(ahead, -MOST_PROGRESS), MOST_PROGRESS)
    gram, right = products[:, 1:, 1:], products[:, 0, 1:]
    # What time alone leaves unexplained of the inner products with each difference.
    right = right - ahead * gram[:, :, 0]
    ridged = gram + RIDGE * torch.diag_embed(torch.diagonal(gram, dim1=1, dim2=2))
    weights = _least_squares(ridged, right)
    return [weights[0] + ahead, *weights[1:]]


@dataclass(frozen=True)
class Row:
    """One way to find the weights."""

    weights: Callable[[float, Sequence[float], torch.Tensor | None], Weights]
    """From a position, those of the last computed residuals, and inner products of signals
    ``[B, 1 + n, 1 + n]``: the first row belongs to the signal's change since the last computed
    evaluation, the others to the n differences of the signals, newest first."""
    order: int | None = None
    """How many differences; None leaves it to the user."""
    follows: bool = False
    """Whether it reads the first blocks' residual, which is known on skipped evaluations too."""
    measured: bool = False
    """Whether computed residuals show how far to trust it."""


FORECASTS = {
    "none": Row(lambda position, times, products: [], order=0),
    "taylorseer": Row(taylorseer),
    "trajectory": Row(trajectory, follows=True),
    "blend": Row(blend, order=2, follows=True, measured=True),
}
"""By the name of the ``calibrator`` input."""


@dataclass(frozen=True)
class _Entry:
    """What is kept of one computed evaluation."""

    position: float
    residual: dict[str, Kept]
    signal: Kept | None
    sample: Streams
    """A part of the residual, where the forecast is measured by it."""


class Forecast:
    """One branch's forecast.

    ``position`` is the place in the schedule (see ``schedule``), no call count: it may have gaps,
    fractions and repetitions. ``signal`` is the residual of the first blocks.

    Where it is measured, each computed residual shows which multiple of the forecast's change would
    have come nearest to it, 0 to 1. The next forecasts go half-way between all of their change and
    that share of it, so one that leads astray is drawn to holding the last residual.
    """

    def __init__(
        self, row: Row, order: int, store: ResidualStore, peers: Peers | None = None
    ) -> None:
        self._row = row
        self._peers = peers or Alone()
        self._order = order if row.order is None else row.order
        self._store = store
        self._history: list[_Entry] = []
        self._trust: float | torch.Tensor = 1.0
        self.tensors_kept = self._order + 2
        """About how many residual-sized tensors a branch keeps, for the memory plan."""

    @property
    def ready(self) -> bool:
        """Whether a residual is known."""
        return bool(self._history)

    @property
    def extrapolates(self) -> bool:
        """Whether enough is known for a prediction to differ from the last residual."""
        return len(self._history) > 1

    def update(self, position: float, residual: Streams, signal: torch.Tensor) -> None:
        """Learn a computed residual (tensors owned by the callee from now on)."""
        row = self._row
        sample = {n: thinned(v) for n, v in residual.items()} if row.measured else {}
        if self._history and self._history[-1].position == position:
            self._history.pop()
        elif row.measured and self.extrapolates:
            self._measure(position, sample, signal)
        kept = {name: self._store.put(value) for name, value in residual.items()}
        seen = self._store.put(thinned(signal)) if row.follows else None
        self._history.append(_Entry(position, kept, seen, sample))
        del self._history[: -(self._order + 1)]

    def predict(self, position: float, signal: torch.Tensor) -> Streams:
        """The residual to add at ``position``; tensors on the device of ``signal``."""
        device = signal.device
        last = {n: self._store.get(v, device) for n, v in self._history[-1].residual.items()}
        weights = [weight * self._trust for weight in self._weights(position, signal)]
        if not weights:
            return last
        result: Streams = {}
        for name, value in last.items():
            history = [self._store.get(entry.residual[name], device) for entry in self._history]
            for k, weight in enumerate(weights):
                value = _plus(value, weight, history[-1 - k] - history[-2 - k])
            result[name] = finite_or(value, last[name])
        return result

    def _weights(self, position: float, signal: torch.Tensor) -> Weights:
        """Weights of the differences at a place; none where no difference is known."""
        if len(self._history) == 1:
            return []
        times = [entry.position for entry in self._history]
        return self._row.weights(position, times, self._products(signal))

    def _products(self, signal: torch.Tensor) -> torch.Tensor | None:
        seen = [e.signal for e in self._history if e.signal is not None]
        if not seen:
            return None
        signals = [self._store.get(kept, signal.device) for kept in reversed(seen)]
        steps = [now - before for now, before in itertools.pairwise(signals)]
        return self._peers.summed(_gram([thinned(signal) - signals[0], *steps]))

    def _measure(self, position: float, sample: Streams, signal: torch.Tensor) -> None:
        """Learn how far to trust, from a residual that a forecast could have been asked for."""
        weights = self._weights(position, signal)
        along: torch.Tensor | float = 0.0
        size: torch.Tensor | float = 0.0
        for name, value in sample.items():
            known = [entry.sample[name].float() for entry in self._history]
            shape = (-1,) + (1,) * (value.ndim - 1)
            forecast = torch.zeros_like(known[-1])
            for k, weight in enumerate(weights):
                assert isinstance(weight, torch.Tensor)
                # In two roundings: one, as ``_plus`` has, moves the last bit of the share.
                difference = known[-1 - k] - known[-2 - k]
                forecast = forecast + weight.view(shape) * difference
            along = along + _dot(forecast, value.float() - known[-1])
            size = size + _dot(forecast, forecast)
        assert isinstance(along, torch.Tensor) and isinstance(size, torch.Tensor)
        along, size = self._peers.summed(torch.stack([along, size])).unbind()
        share = (along / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp(0.0, 1.0)
        self._trust = (1.0 + share) / 2

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor kept."""
        found: list[torch.Tensor] = []
        for entry in self._history:
            signal = [entry.signal] if entry.signal is not None else []
            found += tensors_of([*signal, *entry.residual.values()]) + list(entry.sample.values())
        return found


def make_forecast(
    kind: str, order: int, store: ResidualStore, peers: Peers | None = None
) -> Forecast:
    """The forecast named by the ``calibrator`` input; ``order`` counts where it leaves a choice."""
    return Forecast(FORECASTS[kind], order, store, peers)


def _plus(
    value: torch.Tensor, weight: torch.Tensor | float, difference: torch.Tensor
) -> torch.Tensor:
    """``value + weight · difference``."""
    if not isinstance(weight, torch.Tensor):
        return torch.add(value, difference, alpha=weight)
    shape = (-1,) + (1,) * (value.ndim - 1)
    return torch.addcmul(value, weight.to(value.dtype).view(shape), difference)


def _dot(one: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """Inner products ``[B]`` of two tensors ``[B, …]``; ``[1]`` of packed ones ``[L, D]``."""
    product = one * other
    return product.flatten(1).sum(1) if product.ndim > 2 else product.sum().view(1)


def _gram(vectors: list[torch.Tensor]) -> torch.Tensor:
    """Inner products ``[B, n, n]`` of n tensors ``[B, …]`` in float32."""
    batched = vectors[0].ndim > 2  # packed sequences [L, D] have no batch: one weight for all
    rows = torch.stack([(v if batched else v.unsqueeze(0)).flatten(1) for v in vectors], dim=1)
    rows = rows.float()
    # A matrix product of this shape, a few rows of a million, is far slower on a GPU.
    return (rows.unsqueeze(1) * rows.unsqueeze(2)).sum(-1)


def _least_squares(gram: torch.Tensor, right: torch.Tensor) -> list[torch.Tensor]:
    """Weights ``[B]`` of one or two steps, from their inner products ``[B, n, n]`` and those with
    the target ``[B, n]``.

    Computed per batch item, without a synchronisation.
    """
    tiny = torch.finfo(gram.dtype).tiny
    single = (right[:, 0] / gram[:, 0, 0].clamp_min(tiny)).clamp(-MOST_PROGRESS, MOST_PROGRESS)
    if gram.shape[1] == 1:
        return [single]
    determinant = gram[:, 0, 0] * gram[:, 1, 1] - gram[:, 0, 1] ** 2
    # Nearly parallel steps give huge opposite weights: fall back to the newest step alone.
    sound = determinant > 1e-3 * gram[:, 0, 0] * gram[:, 1, 1]
    safe = torch.where(sound, determinant, torch.ones_like(determinant))
    first = (right[:, 0] * gram[:, 1, 1] - right[:, 1] * gram[:, 0, 1]) / safe
    second = (right[:, 1] * gram[:, 0, 0] - right[:, 0] * gram[:, 0, 1]) / safe
    return [torch.where(sound, first, single), torch.where(sound, second, 0.0)]

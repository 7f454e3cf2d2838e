"""What to put in place of the skipped blocks: forecasts of their residual.

A residual is what the skipped blocks add to the hidden state, one tensor a stream. Every forecast
can be used by every policy; where one is no finite number it is the last residual. ``position`` is
the place in the schedule (see ``schedule``) and ``signal`` the residual of the first blocks, which
is known on skipped evaluations too.
"""

from __future__ import annotations

from typing import Protocol

import torch

from ..cache_dit.library import CalibratedStream
from ..signals import finite_or, thinned
from ..store.residual_store import Kept, ResidualStore, tensors_of

Streams = dict[str, torch.Tensor]


class Forecast(Protocol):
    """One branch's forecast."""

    tensors_kept: int
    """About how many residual-sized tensors a branch keeps, for the memory plan."""

    @property
    def ready(self) -> bool:
        """Whether a residual is known."""
        ...

    @property
    def extrapolates(self) -> bool:
        """Whether enough is known for a prediction to differ from the last residual."""
        ...

    def update(self, position: float, residual: Streams, signal: torch.Tensor) -> None:
        """Learn a computed residual (tensors owned by the callee from now on)."""
        ...

    def predict(self, position: float, signal: torch.Tensor) -> Streams:
        """The residual to add at ``position``; tensors on the device of ``signal``."""
        ...

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor kept."""
        ...


class Hold:
    """The last computed residual as it is."""

    tensors_kept = 2

    def __init__(self, store: ResidualStore) -> None:
        self._store = store
        self._residual: dict[str, Kept] = {}

    @property
    def ready(self) -> bool:
        return bool(self._residual)

    @property
    def extrapolates(self) -> bool:
        return False

    def update(self, position: float, residual: Streams, signal: torch.Tensor) -> None:
        self._residual = {name: self._store.put(value) for name, value in residual.items()}

    def predict(self, position: float, signal: torch.Tensor) -> Streams:
        return {n: self._store.get(v, signal.device) for n, v in self._residual.items()}

    def tensors(self) -> list[torch.Tensor]:
        return tensors_of(self._residual.values())


class Calibrated:
    """TaylorSeer (arXiv 2503.06923), FoCa (arXiv 2508.16211) or DMD by cache-dit's calibrators."""

    def __init__(self, store: ResidualStore, kind: str, order: int) -> None:
        self._store = store
        self._kind, self._order = kind, order
        self._streams: dict[str, CalibratedStream] = {}
        self._seen = 0
        self.tensors_kept = {"taylorseer": 3 + 2 * order, "foca": 5, "dmd": 11}[kind]

    @property
    def ready(self) -> bool:
        return bool(self._streams)

    @property
    def extrapolates(self) -> bool:
        return self._seen > 1

    def update(self, position: float, residual: Streams, signal: torch.Tensor) -> None:
        self._seen += 1
        for name, value in residual.items():
            if name not in self._streams:
                self._streams[name] = CalibratedStream(self._kind, self._order, self._store)
            self._streams[name].update(position, value)

    def predict(self, position: float, signal: torch.Tensor) -> Streams:
        return {
            name: stream.predict(position, signal.device) for name, stream in self._streams.items()
        }

    def tensors(self) -> list[torch.Tensor]:
        return [t for stream in self._streams.values() for t in stream.tensors()]


# When the last two signals hardly differ their ratio means little; no forecast goes further than
# this many times the last difference.
MOST_PROGRESS = 8.0


class _Followed:
    """A residual that follows the first blocks: ``R ≈ R₁ + Σ aₖ Dₖ``.

    R₁ is the last computed residual and Dₖ the differences of the last computed ones, newest first.
    The first blocks' residual r is known on skipped evaluations too; subclasses find the weights
    ``aₖ`` from it, per batch item; a part of its tokens is enough for that.
    """

    def __init__(self, store: ResidualStore, order: int) -> None:
        self._store = store
        self._order = order
        self._history: list[tuple[float, Kept, dict[str, Kept]]] = []
        self._trust: float | torch.Tensor = 1.0
        self.tensors_kept = order + 2

    @property
    def ready(self) -> bool:
        return bool(self._history)

    @property
    def extrapolates(self) -> bool:
        return len(self._history) > 1

    def update(self, position: float, residual: Streams, signal: torch.Tensor) -> None:
        if self._history and self._history[-1][0] == position:
            self._history.pop()
        kept = {name: self._store.put(value) for name, value in residual.items()}
        self._history.append((position, self._store.put(thinned(signal)), kept))
        del self._history[: -(self._order + 1)]

    def predict(self, position: float, signal: torch.Tensor) -> Streams:
        device = signal.device
        last = {n: self._store.get(v, device) for n, v in self._history[-1][2].items()}
        if len(self._history) == 1:
            return last
        weights = [weight * self._trust for weight in self._progress(position, signal)]
        result: Streams = {}
        for name, value in last.items():
            history = [self._store.get(entry[2][name], device) for entry in self._history]
            for k, weight in enumerate(weights):
                shape = (-1,) + (1,) * (value.ndim - 1)
                difference = history[-1 - k] - history[-2 - k]
                value = torch.addcmul(value, weight.to(value.dtype).view(shape), difference)
            result[name] = finite_or(value, last[name])
        return result

    def _progress(self, position: float, signal: torch.Tensor) -> list[torch.Tensor]:
        """Weights ``[B]`` of the differences at a place, newest first."""
        signals = [self._store.get(kept, signal.device) for _, kept, _ in self._history]
        steps = [signals[-1] - signals[-2]]
        if len(signals) == 3:
            steps.append(signals[-2] - signals[-3])
        return self._weights(position, _gram([thinned(signal) - signals[-1], *steps]))

    def _weights(self, position: float, products: torch.Tensor) -> list[torch.Tensor]:
        """Weights ``[B]`` a difference, from the inner products ``[B, 1 + n, 1 + n]``.

        The first row belongs to the signal's change since the last computed evaluation, the
        others to the n differences of the signals, newest first.
        """
        raise NotImplementedError

    def tensors(self) -> list[torch.Tensor]:
        return tensors_of(k for _, s, streams in self._history for k in (s, *streams.values()))


class Trajectory(_Followed):
    """Moves the residual along its last differences by the progress of the first blocks.

    With r the signal now and r₁, r₀ those of the last two computed evaluations:
    ``a = <r - r₁, r₁ - r₀> / |r₁ - r₀|²``; order 2 takes the least-squares combination of the last
    two differences. Cache trajectory alignment of DiCache (arXiv 2508.17356).
    """

    def _weights(self, position: float, products: torch.Tensor) -> list[torch.Tensor]:
        return _least_squares(products[:, 1:, 1:], products[:, 0, 1:])


RIDGE = 0.5
"""How strongly ``Blend`` trusts time against the signal; 0.3 to 1 are about as good on the demo
model, 0 is the trajectory of order 2, very large is TaylorSeer of order 1."""


class Blend(_Followed):
    """Between extrapolation in time and the progress of the first blocks, over two differences.

    Time alone (TaylorSeer of order 1) gives the weights ``a⁰ = ((t - t₁) / (t₁ - t₀), 0)``. The
    weights used are those near it that best explain the signal's change d by the signals' own
    differences: they minimise ``|d - Σ aₖ Dₖ|² + λ Σ |Dₖ|² (aₖ - a⁰ₖ)²``, a ridge regression with
    a prior. Where the signal says little, time decides; where the signal jumps, it is followed.

    How far to go is measured: each computed residual shows which multiple of the forecast's change
    would have come nearest to it, 0 to 1. The next forecasts go half-way between all of their
    change and that share of it, so one that leads astray is drawn to holding the last residual.
    """

    def __init__(self, store: ResidualStore) -> None:
        super().__init__(store, order=2)
        self._samples: list[Streams] = []
        """Parts of the residuals in the history."""

    def update(self, position: float, residual: Streams, signal: torch.Tensor) -> None:
        samples = {name: thinned(value) for name, value in residual.items()}
        if self._history and self._history[-1][0] == position:
            self._samples.pop()
        elif len(self._history) > 1:
            self._measure(position, samples, signal)
        super().update(position, residual, signal)
        self._samples = [*self._samples, samples][-len(self._history) :]

    def _measure(self, position: float, samples: Streams, signal: torch.Tensor) -> None:
        """Learn how far to trust, from a residual that a forecast could have been asked for."""
        weights = self._progress(position, signal)
        along: torch.Tensor | float = 0.0
        size: torch.Tensor | float = 0.0
        for name, value in samples.items():
            known = [earlier[name].float() for earlier in self._samples]
            shape = (-1,) + (1,) * (value.ndim - 1)
            forecast = sum(
                weight.view(shape) * (known[-1 - k] - known[-2 - k])
                for k, weight in enumerate(weights)
            )
            assert isinstance(forecast, torch.Tensor)
            along = along + _dot(forecast, value.float() - known[-1])
            size = size + _dot(forecast, forecast)
        assert isinstance(along, torch.Tensor) and isinstance(size, torch.Tensor)
        share = (along / size.clamp_min(torch.finfo(size.dtype).tiny)).clamp(0.0, 1.0)
        self._trust = (1.0 + share) / 2

    def tensors(self) -> list[torch.Tensor]:
        return [*super().tensors(), *(t for kept in self._samples for t in kept.values())]

    def _weights(self, position: float, products: torch.Tensor) -> list[torch.Tensor]:
        times = [entry[0] for entry in self._history]
        ahead = (position - times[-1]) / (times[-1] - times[-2])
        ahead = min(max(ahead, -MOST_PROGRESS), MOST_PROGRESS)
        gram, right = products[:, 1:, 1:], products[:, 0, 1:]
        # What time alone leaves unexplained of the inner products with each difference.
        right = right - ahead * gram[:, :, 0]
        ridged = gram + RIDGE * torch.diag_embed(torch.diagonal(gram, dim1=1, dim2=2))
        weights = _least_squares(ridged, right)
        return [weights[0] + ahead, *weights[1:]]


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


def make_forecast(kind: str, order: int, store: ResidualStore) -> Forecast:
    """The forecast named by the ``calibrator`` input."""
    if kind == "none":
        return Hold(store)
    if kind == "trajectory":
        return Trajectory(store, order)
    if kind == "blend":
        return Blend(store)
    return Calibrated(store, kind, order)

"""What to put in place of the skipped blocks: forecasts of their residual.

A residual is what the skipped blocks add to the hidden state, one tensor a stream. Every forecast
can be used by every policy. ``position`` is the place in the schedule (see ``schedule``) and
``signal`` the residual of the first blocks, which is known on skipped evaluations too.
"""

from __future__ import annotations

from typing import Protocol

import torch

from .cache_dit_adapter import CalibratedStream
from .residual_store import Kept, ResidualStore, tensors_of
from .signals import thinned

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
        self._history: list[tuple[float, torch.Tensor, dict[str, Kept]]] = []
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
        self._history.append((position, thinned(signal), kept))
        del self._history[: -(self._order + 1)]

    def predict(self, position: float, signal: torch.Tensor) -> Streams:
        device = signal.device
        signals = [s for _, s, _ in self._history]
        last = {n: self._store.get(v, device) for n, v in self._history[-1][2].items()}
        if len(signals) == 1:
            return last
        steps = [signals[-1] - signals[-2]]
        if len(signals) == 3:
            steps.append(signals[-2] - signals[-3])
        weights = self._weights(position, _gram([thinned(signal) - signals[-1], *steps]))
        result: Streams = {}
        for name, value in last.items():
            history = [self._store.get(entry[2][name], device) for entry in self._history]
            for k, weight in enumerate(weights):
                shape = (-1,) + (1,) * (value.ndim - 1)
                difference = history[-1 - k] - history[-2 - k]
                value = torch.addcmul(value, weight.to(value.dtype).view(shape), difference)
            result[name] = value
        return result

    def _weights(self, position: float, products: torch.Tensor) -> list[torch.Tensor]:
        """Weights ``[B]`` a difference, from the inner products ``[B, 1 + n, 1 + n]``.

        The first row belongs to the signal's change since the last computed evaluation, the
        others to the n differences of the signals, newest first.
        """
        raise NotImplementedError

    def tensors(self) -> list[torch.Tensor]:
        kept = tensors_of(k for _, _, streams in self._history for k in streams.values())
        return [*kept, *(signal for _, signal, _ in self._history)]


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
    """

    def __init__(self, store: ResidualStore) -> None:
        super().__init__(store, order=2)

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

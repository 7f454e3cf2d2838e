"""Other ways to spend a number of evaluations, for benchmarks only, each written from its paper.

- ``recorded``: the path planning of DPCache. One full run a pair of prompt and seed is recorded;
  the cost of a gap between two computed steps is the error of *our* forecast in it, and dynamic
  programming over pairs of computed steps finds the plan. Its pairs take no part in what is
  reported.
- ``spectrum``: residuals forecast by Chebyshev polynomials that ridge regression fits to all
  computed ones, half and half with a Taylor step, in windows that grow (arXiv 2603.01623).
- ``average velocity``: from one computed step to the next in one leap along an estimate of the mean
  velocity between them, at steps chosen by the shortest path over recorded errors, squared so that
  peaks count more (MeanCache, arXiv 2601.19961).
"""

from __future__ import annotations

import contextlib
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

DEGREE, CHEBYSHEV_RIDGE, MIXED = 4, 0.1, 0.5
"""Spectrum's polynomials, their ridge, and their share beside a Taylor step."""

WARM_UP = 5
"""So many steps Spectrum computes first."""

AVERAGE = "average_velocity"
"""Name of the sampler that leaps."""

Streams = Mapping[str, "torch.Tensor"]


# ------------------------------------------------------------------ recording


Entry = tuple[float, dict[str, "torch.Tensor"], "torch.Tensor"]
"""A position, the residual there, and the first blocks' signal; a part of the tokens."""

Recording = dict[int, Entry]
"""One branch of a full run, by step."""


@contextlib.contextmanager
def forecasts(make: Callable[..., Any]) -> Iterator[None]:
    """Runs that are opened meanwhile forecast by this, called as ``make_forecast`` is."""
    from dit_acceleration_pack.acceleration.sampling import branches

    before = branches.make_forecast
    branches.make_forecast = make
    try:
        yield
    finally:
        branches.make_forecast = before


def recording(found: list[Recording]) -> Callable[..., Any]:
    """The shipped forecast, which writes down what it learns; one recording a branch."""
    from dit_acceleration_pack.acceleration.forecasts.forecast import FORECASTS, Forecast

    class Recorded(Forecast):
        def update(self, position: float, residual: Any, signal: torch.Tensor) -> None:
            if position == int(position):
                few = {name: _few(value) for name, value in residual.items()}
                own.setdefault(id(self), {}).setdefault(
                    int(position), (position, few, _few(signal))
                )
                found[:] = own.values()
            super().update(position, residual, signal)

    own: dict[int, Recording] = {}
    return lambda kind, order, store, peers=None: Recorded(FORECASTS[kind], order, store, peers)


def _few(value: torch.Tensor) -> torch.Tensor:
    """At most 64 of the tokens, and all of what comes after them."""
    return value[:, :: max(value.shape[1] // 64, 1)].detach().clone()


def gap_costs(runs: Sequence[Recording], sigmas: Sequence[float]) -> torch.Tensor:
    """``[n, n, n + 1]``: what it costs to compute step j next, i and before it k computed last.

    The sum of the forecast's errors in the gap, each relative to the residual and times what its
    step takes away of the noise. Where k is i nothing before i is known; j = n is the end.
    """
    import torch

    steps = len(sigmas) - 1
    errors = torch.zeros(steps, steps, steps)
    for run in runs:
        for k, i in itertools.combinations_with_replacement(range(steps), 2):
            forecast = _knowing([run[at] for at in sorted({k, i})])
            for s in range(i + 1, steps):
                position, true, signal = run[s]
                off = _distance(forecast.predict(position, signal), true)
                errors[k, i, s] += off * (sigmas[s] - sigmas[s + 1]) / len(runs)
    costs = torch.full((steps, steps, steps + 1), math.inf)
    for i in range(steps):
        costs[:, i, i + 1] = 0.0
        costs[:, i, i + 2 :] = errors[:, i, i + 1 :].cumsum(1)
    return costs


def _knowing(entries: Sequence[Entry]) -> Any:
    from dit_acceleration_pack.acceleration.forecasts.forecast import make_forecast
    from dit_acceleration_pack.acceleration.store.residual_store import ResidualStore

    forecast = make_forecast("blend", 1, ResidualStore("gpu", lambda device: math.inf, 0))
    for position, residual, signal in entries:
        forecast.update(position, dict(residual), signal)
    return forecast


def _distance(one: Streams, other: Streams) -> float:
    off = sum(float((one[name] - other[name]).square().sum()) for name in other)
    size = sum(float(value.square().sum()) for value in other.values())
    return math.sqrt(off / size) if size else 0.0


def shortest_path(costs: torch.Tensor, count: int) -> set[int]:
    """The first step and so many more that the ways between them cost least.

    The state is a pair (k, i) of the last two computed steps; ``least[k, i]`` is the cost of what
    comes after i with so many more computed.
    """
    steps = costs.shape[0]
    least = costs[:, :, steps].clone()
    choices = []
    for _ in range(count - 1):
        whole = costs[:, :, :steps] + least.unsqueeze(0)
        least, chosen = whole.min(2)
        choices.append(chosen)
    k = i = 0
    found = {0}
    for chosen in reversed(choices):
        k, i = i, int(chosen[k, i])
        found.add(i)
    return found


# ------------------------------------------------------------------- Spectrum


def growing_windows(steps: int, count: int) -> set[int]:
    """A warm-up, then windows that grow evenly so that so many steps are computed."""
    warm = min(WARM_UP, count)
    left, found = count - warm, set(range(warm))
    if not left:
        return found
    # The first window is as long as the others on average would be with half of the growth.
    mean = (steps - warm) / left
    growth = 2 * (mean - 1) / max(left, 1) if mean > 1 else 0.0
    places = itertools.accumulate(
        (1 + growth * (n + 0.5) for n in range(left)), initial=float(warm)
    )
    for place in itertools.islice(places, 1, None):
        found.add(min(max(round(place) - 1, max(found) + 1), steps - 1))
    rest = [step for step in reversed(range(steps)) if step not in found]
    return found | set(rest[: count - len(found)])


class SpectrumForecast:
    """Chebyshev polynomials over all computed residuals, in place of the pack's forecast."""

    tensors_kept = 8

    def __init__(self, steps: int) -> None:
        self._steps = steps
        self._known: list[tuple[float, dict[str, torch.Tensor]]] = []

    @property
    def ready(self) -> bool:
        return bool(self._known)

    @property
    def extrapolates(self) -> bool:
        return len(self._known) > 1

    def update(self, position: float, residual: Any, signal: torch.Tensor) -> None:
        self._known.append((position, residual))

    def predict(self, position: float, signal: torch.Tensor) -> dict[str, torch.Tensor]:
        weights = self._weights(position)
        return {
            name: sum(w * known[name] for w, (_, known) in zip(weights, self._known, strict=True))
            for name in self._known[-1][1]
        }

    def _weights(self, position: float) -> list[float]:
        """Of every known residual: both forecasts are linear in them."""
        import torch

        times = [at for at, _ in self._known]
        taylor = [0.0] * len(times)
        taylor[-1] = 1.0
        if len(times) > 1:
            ahead = (position - times[-1]) / (times[-1] - times[-2])
            taylor[-1], taylor[-2] = 1.0 + ahead, -ahead
        basis = torch.stack([self._polynomials(at) for at in times])
        gram = basis.T @ basis + CHEBYSHEV_RIDGE * torch.eye(DEGREE + 1, dtype=basis.dtype)
        fitted = self._polynomials(position) @ torch.linalg.solve(gram, basis.T)
        return [MIXED * f + (1 - MIXED) * t for f, t in zip(fitted.tolist(), taylor, strict=True)]

    def _polynomials(self, position: float) -> torch.Tensor:
        import torch

        angle = math.acos(max(-1.0, min(1.0, 2 * position / max(self._steps - 1, 1) - 1)))
        return torch.tensor([math.cos(n * angle) for n in range(DEGREE + 1)], dtype=torch.float64)

    def tensors(self) -> list[torch.Tensor]:
        return [value for _, known in self._known for value in known.values()]


def spectrum(steps: int) -> Callable[..., Any]:
    return lambda kind, order, store, peers=None: SpectrumForecast(steps)


# ----------------------------------------------------------- average velocity


Path = tuple[list["torch.Tensor"], list["torch.Tensor"]]
"""Samples and denoised results of a run, in order, ``[B, ...]`` each."""


def watched(model: Any) -> tuple[Any, Path]:
    """A model that writes down the samples and the denoised results of the run to come."""
    samples: list[torch.Tensor] = []
    results: list[torch.Tensor] = []

    def see(seen: Mapping[str, Any]) -> torch.Tensor:
        samples.append(seen["input"].clone())
        results.append(seen["denoised"].clone())
        denoised: torch.Tensor = seen["denoised"]
        return denoised

    model = model.clone()
    model.set_model_sampler_post_cfg_function(see)
    return model, (samples, results)


def leap_costs(paths: Sequence[Path], sigmas: Sequence[float]) -> torch.Tensor:
    """``[n, n, n + 1]`` as ``gap_costs``: the squared error of the leap from i to j."""
    import torch

    steps = len(sigmas) - 1
    costs = torch.zeros(steps, steps, steps + 1)
    for path in paths:
        samples, results = (torch.stack([each[0].flatten() for each in part]) for part in path)
        velocities = (samples - results) / torch.tensor(sigmas[:-1])[:, None]
        ends = torch.cat([samples[1:], samples[-1:] - sigmas[-2] * velocities[-1:]])
        for k, i in itertools.combinations_with_replacement(range(steps), 2):
            here = sigmas[i]
            mean = (samples[i] - samples[k]) / (here - sigmas[k]) if k < i else velocities[i]
            turning = (velocities[i] - mean) / ((here - sigmas[k]) or 1.0)
            widths = torch.tensor(sigmas[i + 1 :]) - here
            leaps = (velocities[i] + widths[:, None] * turning) * widths[:, None]
            leaps[0] = velocities[i] * widths[0]
            costs[k, i, i + 1 :] += (samples[i] + leaps - ends[i:]).square().mean(1)
    for i in range(steps):
        costs[:, i, : i + 1] = math.inf
    return costs


def leaping(chosen: Sequence[int]) -> Callable[..., torch.Tensor]:
    """A sampler that evaluates chosen steps of a schedule and leaps from each to the next."""
    import torch

    @torch.no_grad()
    def sample(
        model: Any, x: Any, sigmas: Any, extra_args: Any = None, callback: Any = None,
        disable: Any = None,
    ) -> torch.Tensor:  # fmt: skip
        ones, before = x.new_ones([x.shape[0]]), None
        ends = [*sorted(chosen)[1:], len(sigmas) - 1]
        for at, end in zip(sorted(chosen), ends, strict=True):
            denoised = model(x, sigmas[at] * ones, **(extra_args or {}))
            velocity = (x - denoised) / sigmas[at]
            if callback is not None:
                callback({"x": x, "i": at, "sigma": sigmas[at], "denoised": denoised})
            if before is not None and end > at + 1:
                last, sigma = before
                mean = (x - last) / (sigmas[at] - sigma)
                turning = (velocity - mean) / (sigmas[at] - sigma)
                velocity = velocity + (sigmas[end] - sigmas[at]) * turning
            before = x, sigmas[at]
            x = x + velocity * (sigmas[end] - sigmas[at])
        return x

    return sample


def register(sampler: Callable[..., torch.Tensor]) -> str:
    """Give the host a sampler; returns its name."""
    import comfy.k_diffusion.sampling

    setattr(comfy.k_diffusion.sampling, f"sample_{AVERAGE}", sampler)
    return AVERAGE

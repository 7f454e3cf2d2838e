"""Rivals of the plan that benchmarks compare it with."""

from __future__ import annotations

import itertools
import sys
from types import ModuleType
from typing import Any

import pytest
import torch

from comfyui_environment import ROOT


@pytest.fixture
def rivals(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    import rivals

    sys.modules.setdefault("rivals", rivals)
    return rivals


@pytest.mark.parametrize(("steps", "count"), [(28, 6), (28, 9), (28, 20), (50, 14), (20, 5)])
def test_windows_grow_and_compute_so_many(rivals: ModuleType, steps: int, count: int) -> None:
    chosen = sorted(rivals.growing_windows(steps, count))
    assert len(chosen) == count and chosen[0] == 0 and chosen[-1] <= steps - 1
    gaps = [b - a for a, b in itertools.pairwise(chosen[rivals.WARM_UP - 1 :])]
    assert len(gaps) < 2 or gaps[-1] >= gaps[0]


def test_shortest_path_is_the_cheapest_of_all(rivals: ModuleType) -> None:
    steps, count = 7, 4
    torch.manual_seed(0)
    costs = torch.rand(steps, steps, steps + 1)
    for i in range(steps):
        costs[:, i, : i + 1] = torch.inf

    def cost(path: tuple[int, ...]) -> float:
        way = (0, *path, steps)
        before = (0, 0, *path[:-1])
        return sum(
            float(costs[k, i, j]) for k, (i, j) in zip(before, itertools.pairwise(way), strict=True)
        )

    best = min(itertools.combinations(range(1, steps), count - 1), key=cost)
    assert rivals.shortest_path(costs, count) == {0, *best}


def test_spectrum_forecast_follows_a_line_nearly(rivals: ModuleType) -> None:
    forecast = rivals.SpectrumForecast(20)
    for step in range(10):
        forecast.update(float(step), {"img": torch.full((1, 3, 2), 2.0 * step)}, torch.zeros(1))
    ahead = forecast.predict(11.0, torch.zeros(1))["img"]
    # The ridge draws it to zero; holding would say 18, the line 22.
    assert 18.5 < float(ahead.mean()) < 22.5


def test_leaps_along_a_linear_velocity_cost_nothing(rivals: ModuleType) -> None:
    sigmas = [1.0, 0.8, 0.6, 0.4, 0.2, 0.0]
    # x'' is constant: x = s², so the velocity is 2 s, and a full run of tiny steps is exact.
    samples = [torch.tensor([[s * s]]) for s in sigmas[:-1]]
    results = [torch.tensor([[s * s - s * 2 * s]]) for s in sigmas[:-1]]
    costs = rivals.leap_costs([(samples, results)], sigmas)
    assert float(costs[0, 1, 3]) == pytest.approx(0.0, abs=1e-12)
    # With no slope known yet it goes straight on: 1 - 2 * 0.4 in place of 0.36.
    assert float(costs[0, 0, 2]) == pytest.approx((0.36 - 0.2) ** 2)


def test_the_sampler_leaps_from_chosen_step_to_chosen_step(rivals: ModuleType) -> None:
    sigmas = torch.tensor([1.0, 0.8, 0.6, 0.4, 0.2, 0.0])
    asked: list[float] = []

    def model(x: torch.Tensor, sigma: torch.Tensor, **_: Any) -> torch.Tensor:
        asked.append(round(float(sigma[0]), 3))
        return x - sigma * 2 * sigma

    sample = rivals.leaping([0, 1, 3])
    found = sample(model, torch.ones(1), sigmas)
    assert asked == [1.0, 0.8, 0.4]
    assert float(found) == pytest.approx(-0.04, abs=1e-5)

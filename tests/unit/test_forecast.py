"""Forecasts with numbers that can be checked by hand."""

from __future__ import annotations

import copy

import pytest
import torch

from dit_acceleration_pack.acceleration.cache_dit.library import load
from dit_acceleration_pack.acceleration.forecasts import forecast as forecasts
from dit_acceleration_pack.acceleration.forecasts.forecast import (
    FORECASTS,
    RIDGE,
    Streams,
    make_forecast,
)
from dit_acceleration_pack.acceleration.settings.caching import CALIBRATORS
from dit_acceleration_pack.acceleration.store.residual_store import ResidualStore, bytes_of


def store() -> ResidualStore:
    return ResidualStore("gpu", lambda _: 0, 1)


def tensor(*values: float) -> torch.Tensor:
    """One value per batch item, ``[B, 1, 2]``."""
    return torch.tensor(values).view(-1, 1, 1).expand(-1, 1, 2).clone()


def image(*values: float) -> Streams:
    return {"image": tensor(*values)}


def value(streams: Streams) -> list[float]:
    return [float(x) for x in streams["image"][:, 0, 0]]


def test_the_input_offers_every_row() -> None:
    assert set(CALIBRATORS) == set(FORECASTS)


@pytest.mark.parametrize("kind", CALIBRATORS)
def test_ready_only_after_a_residual_and_exact_right_after(kind: str) -> None:
    forecast = make_forecast(kind, 1, store())
    assert not forecast.ready
    forecast.update(0.0, image(3.0), tensor(1.0))
    assert forecast.ready
    assert value(forecast.predict(1.0, tensor(1.5))) == [3.0]
    assert forecast.tensors()


def test_hold_keeps_the_last() -> None:
    forecast = make_forecast("none", 1, store())
    forecast.update(0.0, image(3.0), tensor(1.0))
    forecast.update(1.0, image(4.0), tensor(1.0))
    assert value(forecast.predict(5.0, tensor(9.0))) == [4.0]


def test_taylorseer_follows_a_straight_line_over_uneven_positions() -> None:
    forecast = make_forecast("taylorseer", 1, store())
    for position in (0.0, 1.0, 2.0, 4.0):
        forecast.update(position, image(10 + 3 * position), tensor(1.0))
    assert value(forecast.predict(5.0, tensor(1.0))) == pytest.approx([25.0])
    assert value(forecast.predict(6.5, tensor(1.0))) == pytest.approx([29.5])


def test_taylorseer_order_two_bends() -> None:
    straight, bent = (make_forecast("taylorseer", order, store()) for order in (1, 2))
    for forecast in (straight, bent):
        for position in (0.0, 1.0, 2.0, 3.0):
            forecast.update(position, image(position**2), tensor(1.0))
    error = [abs(value(f.predict(5.0, tensor(1.0)))[0] - 25) for f in (straight, bent)]
    assert error[1] < error[0]


POSITIONS = [
    [0, 1, 2, 3, 4, 6, 9],
    [0.0, 0.4, 1.0, 1.3, 2.6, 2.6, 5.1, 8.75],
    [3.5, 4.0, 4.0, 4.0, 7.0, 7.25],
    [0, 2, 1, 3],
]


@pytest.mark.parametrize("order", [1, 2])
@pytest.mark.parametrize("positions", POSITIONS, ids=str)
def test_taylorseer_is_that_of_cache_dit(order: int, positions: list[float]) -> None:
    """The library counts calls; its clock is set to the position, a repeated one taken back."""
    load()
    from cache_dit.caching.cache_contexts import calibrators
    from cache_dit.caching.cache_contexts.calibrators.taylorseer import TaylorSeerState

    assert calibrators is not None
    ours, theirs = make_forecast("taylorseer", order, store()), TaylorSeerState(order)
    generator = torch.Generator().manual_seed(order)
    before = copy.deepcopy(theirs)
    for place, position in enumerate(positions):
        residual = torch.randn(2, 5, 4, generator=generator)
        ours.update(position, {"image": residual}, tensor(1.0))
        if place and position == positions[place - 1]:
            theirs = before
        before = copy.deepcopy(theirs)
        theirs.current_step = position
        theirs.update(residual)
        for ahead in (0.25, 1.0, 3.5):
            theirs.current_step = position + ahead
            found = ours.predict(position + ahead, tensor(1.0))["image"]
            torch.testing.assert_close(found, theirs.approximate(), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", ["taylorseer", "trajectory", "blend"])
def test_a_second_value_at_the_same_position_replaces_the_first(kind: str) -> None:
    once, twice = (make_forecast(kind, 1, store()) for _ in range(2))
    for position in (0.0, 1.0, 2.0, 3.0):
        if position > 0:
            twice.update(position, image(-7.0), tensor(-3.0))
        for forecast in (once, twice):
            forecast.update(position, image(2 * position), tensor(position))
    predictions = [value(f.predict(4.0, tensor(4.0)))[0] for f in (once, twice)]
    assert predictions[0] == pytest.approx(predictions[1])
    assert all(torch.tensor(predictions).isfinite())


def test_trajectory_moves_by_the_progress_of_the_signal() -> None:
    """R0 = 10, R1 = 14 while r went 1 → 3; r = 4 is half a difference further: 14 + 0.5 · 4."""
    forecast = make_forecast("trajectory", 1, store())
    forecast.update(0.0, image(10.0), tensor(1.0))
    forecast.update(1.0, image(14.0), tensor(3.0))
    assert value(forecast.predict(2.0, tensor(4.0))) == pytest.approx([16.0])
    assert value(forecast.predict(9.0, tensor(3.0))) == pytest.approx([14.0]), "time plays no role"


def test_trajectory_goes_by_batch_item() -> None:
    forecast = make_forecast("trajectory", 1, store())
    forecast.update(0.0, image(10.0, 0.0), tensor(1.0, 1.0))
    forecast.update(1.0, image(14.0, 1.0), tensor(3.0, 2.0))
    assert value(forecast.predict(2.0, tensor(4.0, 5.0))) == pytest.approx([16.0, 4.0])


def test_trajectory_order_two_is_the_least_squares_combination() -> None:
    """Signals that differ in two directions; the target is 2 steps of one and 1 of the other."""
    forecast = make_forecast("trajectory", 2, store())
    signals = [torch.tensor([[[0.0, 0.0]]]), torch.tensor([[[1.0, 0.0]]])]
    signals.append(signals[1] + torch.tensor([[[0.0, 1.0]]]))
    for k, (signal, residual) in enumerate(zip(signals, (1.0, 2.0, 5.0), strict=True)):
        forecast.update(float(k), image(residual), signal)
    target = signals[2] + torch.tensor([[[1.0, 2.0]]])
    # Newest difference 3 with weight 2, the one before 1 with weight 1.
    assert value(forecast.predict(3.0, target)) == pytest.approx([5.0 + 2 * 3 + 1 * 1])


@pytest.mark.parametrize("order", [1, 2])
def test_trajectory_without_movement_holds(order: int) -> None:
    forecast = make_forecast("trajectory", order, store())
    for position in (0.0, 1.0, 2.0):
        forecast.update(position, image(7.0), tensor(1.0))
    assert value(forecast.predict(3.0, tensor(2.0))) == [7.0]


def test_every_stream_is_forecast() -> None:
    for kind in ("none", "taylorseer", "trajectory"):
        forecast = make_forecast(kind, 1, store())
        for position in (0.0, 1.0, 2.0):
            streams = {"image": tensor(position), "text": tensor(10 * position)}
            forecast.update(position, streams, tensor(position))
        streams = forecast.predict(3.0, tensor(3.0))
        assert set(streams) == {"image", "text"}
        if kind != "none":
            assert float(streams["text"][0, 0, 0]) == pytest.approx(30.0)


def test_bytes_count_every_storage_once() -> None:
    kept = torch.zeros(4, dtype=torch.float32)
    assert bytes_of([kept, kept.view(2, 2), torch.zeros(2)]) == 16 + 8


def test_auto_placement_follows_free_memory() -> None:
    kept = ResidualStore("auto", lambda _: 100, 2)
    assert kept.put(torch.zeros(4)).tensors[0].device.type == "cpu"


def test_blend_lies_between_time_and_the_signal() -> None:
    """Two residuals, so one difference: the weight is (λ·time + signal) / (λ + 1)."""
    forecast = make_forecast("blend", 1, store())
    forecast.update(0.0, image(0.0), tensor(0.0))
    forecast.update(1.0, image(10.0), tensor(1.0))
    # Time has gone on by 2, the signal by 3: (0.5 * 2 + 3) / 1.5 differences of 10.
    expected = 10 + 10 * (RIDGE * 2 + 3) / (RIDGE + 1)
    assert value(forecast.predict(3.0, tensor(4.0))) == pytest.approx([expected], rel=1e-5)


def test_blend_agrees_where_time_and_signal_agree() -> None:
    forecast = make_forecast("blend", 1, store())
    for position in (0.0, 1.0, 3.0):
        forecast.update(position, image(5 + 2 * position), tensor(1 + position))
    assert value(forecast.predict(4.5, tensor(5.5))) == pytest.approx([14.0], rel=1e-4)


def test_blend_follows_time_where_the_signal_stands_still() -> None:
    forecast = make_forecast("blend", 1, store())
    for position in (0.0, 1.0, 2.0):
        forecast.update(position, image(3 * position), tensor(1.0))
    assert value(forecast.predict(4.0, tensor(1.0))) == pytest.approx([12.0])


def test_blend_finds_its_weights_per_batch_item() -> None:
    forecast = make_forecast("blend", 1, store())
    forecast.update(0.0, image(0.0, 0.0), tensor(0.0, 0.0))
    forecast.update(1.0, image(10.0, 10.0), tensor(1.0, 1.0))
    still, quick = value(forecast.predict(2.0, tensor(1.0, 3.0)))
    assert still < 10 + 10 * 1 < quick


@pytest.mark.parametrize(
    ("residuals", "expected"),
    [
        ((1.0, 2.0, 3.0), 4.0),  # the last forecast was right: all of the change
        ((1.0, 2.0, 2.5), 2.875),  # half of its change came true: three quarters of the next
        ((1.0, 2.0, 1.0), 0.5),  # it led the wrong way: half of the next
    ],
)
def test_blend_goes_as_far_as_the_last_residual_allows(
    residuals: tuple[float, ...], expected: float
) -> None:
    forecast = make_forecast("blend", 1, store())
    for position, residual in enumerate(residuals):
        forecast.update(float(position), image(residual), tensor(float(position)))
    assert value(forecast.predict(3.0, tensor(3.0))) == [pytest.approx(expected)]


@pytest.mark.parametrize("kind", CALIBRATORS)
def test_where_half_precision_overflows_the_last_residual_stands(kind: str) -> None:
    """One of two numbers leaves the range of fp16 when it goes on as it did."""
    forecast = make_forecast(kind, 1, store())
    for position in range(4):
        residual = torch.tensor([[[30.0 * position, 20000.0 * position]]], dtype=torch.float16)
        forecast.update(float(position), {"image": residual}, tensor(1.0 + position))
    small, large = forecast.predict(9.0, tensor(10.0))["image"].flatten().tolist()
    assert large == 60000.0
    assert small == 90.0 if kind == "none" else small > 90.0, "the other goes on"


@pytest.mark.parametrize("kind", ["trajectory", "blend"])
def test_signals_that_overflow_hold_the_last_residual(kind: str) -> None:
    forecast = make_forecast(kind, 1, store())
    for position, signal in enumerate((-60000.0, 60000.0, -60000.0)):
        half = torch.full((1, 1, 2), signal, dtype=torch.float16)
        forecast.update(float(position), image(float(position)), half)
    assert value(forecast.predict(3.0, torch.full((1, 1, 2), 60000.0).half())) == [2.0]


@pytest.mark.parametrize("kind", ["trajectory", "blend"])
def test_finite_forecasts_keep_every_bit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def predicted() -> torch.Tensor:
        forecast = make_forecast(kind, 2, store())
        generator = torch.Generator().manual_seed(1)
        for position in range(3):
            residual, signal = (torch.randn(2, 5, 4, generator=generator) for _ in range(2))
            forecast.update(float(position), {"image": residual}, signal)
        return forecast.predict(3.0, torch.randn(2, 5, 4, generator=generator))["image"]

    checked = predicted()
    monkeypatch.setattr(forecasts, "finite_or", lambda value, other: value)
    assert torch.equal(checked, predicted())

"""Where tensors are kept: exact bytes, bounded errors, and a budget that holds."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from dit_acceleration_pack.acceleration.forecasts.forecast import make_forecast
from dit_acceleration_pack.acceleration.store import compact
from dit_acceleration_pack.acceleration.store.compact import FP8_MAX, pack, packed_bytes, unpack
from dit_acceleration_pack.acceleration.store.residual_store import (
    CPU,
    ResidualStore,
    StoreFullError,
    bytes_of,
)

B, L, D = 2, 48, 32


def hidden(seed: int = 0, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """A hidden state whose tokens differ in size by a factor of a thousand, ``[B, L, D]``."""
    generator = torch.Generator().manual_seed(seed)
    size = torch.logspace(-2, 1, L).view(1, L, 1)
    return (torch.randn(B, L, D, generator=generator) * size).to(dtype)


# By hand: float32 takes 4 bytes a value, bfloat16 2, fp8 1 and 4 a token for its scale.
BYTES = {"full": B * L * D * 4, "bf16": B * L * D * 2, "fp8": B * L * D + B * L * 4}


@pytest.mark.parametrize("storage", ["full", "bf16", "fp8"])
def test_bytes_are_as_computed_by_hand(storage: str) -> None:
    parts = pack(hidden(), storage)
    assert bytes_of(list(parts)) == packed_bytes(storage, hidden()) == BYTES[storage]


@pytest.mark.parametrize(
    ("storage", "most"), [("full", 0.0), ("bf16", 1 / 256), ("fp8", 1 / 16 + 1e-6)]
)
def test_a_value_is_off_by_no_more_than_its_format_allows(storage: str, most: float) -> None:
    tensor = hidden()
    back = unpack(pack(tensor, storage), tensor.dtype)
    # Below its smallest normal number, 2**-6, fp8 has steps of 2**-9 in units of the scale.
    step = tensor.abs().amax(-1, keepdim=True) / FP8_MAX * 2**-10 if storage == "fp8" else 0.0
    assert back.dtype == tensor.dtype
    assert bool(((back - tensor).abs() <= most * tensor.abs() + step).all())
    assert (storage == "full") == torch.equal(back, tensor)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_fp8_holds_every_dtype_and_finds_its_largest_values_again(dtype: torch.dtype) -> None:
    tensor = hidden(dtype=dtype)
    tensor[0, 0] = 0.0
    tensor[0, 1, 0] = 30000.0
    tensor[0, 2] = torch.finfo(dtype).tiny
    back = unpack(pack(tensor, "fp8"), dtype)
    assert back.dtype == dtype and bool(back.isfinite().all())
    assert bool((back[0, 0] == 0).all())
    assert float(back[0, 1, 0]) == pytest.approx(30000.0, rel=4e-3)
    largest = tensor.float().abs().amax(-1)[0, 3:]
    assert torch.allclose(back.float().abs().amax(-1)[0, 3:], largest, rtol=4e-3)


def test_chunks_do_not_show(monkeypatch: pytest.MonkeyPatch) -> None:
    from dit_acceleration_pack.acceleration.store import compact

    whole = pack(hidden(), "fp8")
    monkeypatch.setattr(compact, "CHUNK", 5 * D)
    for part, expected in zip(pack(hidden(), "fp8"), whole, strict=True):
        assert torch.equal(part.float(), expected.float())


def test_bytes_go_back_to_the_budget_with_the_last_reference() -> None:
    store = ResidualStore("gpu", lambda _: 0, 1)
    kept = [store.put(hidden(k)) for k in range(3)]
    assert store.held(CPU) == 3 * BYTES["full"]
    del kept[1:]
    gc.collect()
    assert store.held(CPU) == BYTES["full"]


@pytest.mark.parametrize(
    ("room", "placement"),
    [(8, "cpu"), (4, "cpu (bf16)"), (2.3, "cpu (fp8)")],
)
def test_auto_takes_the_most_exact_form_that_has_room(room: float, placement: str) -> None:
    """Eight tensors are announced; a full one takes one unit of room."""
    store = ResidualStore("auto", lambda _: int(room * BYTES["full"]), 8)
    kept = [store.put(hidden(k)) for k in range(8)]
    assert store.placement == placement
    assert store.held(CPU) <= room * BYTES["full"]
    assert len(kept) == 8


def test_auto_does_not_compact_what_would_not_get_smaller() -> None:
    tensor = hidden(dtype=torch.bfloat16)
    size = packed_bytes("full", tensor)
    store = ResidualStore("auto", lambda _: size * 6 // 10 * 4, 4)
    store.put(tensor)
    assert store.placement == "cpu (fp8)"


def test_the_budget_holds_when_more_is_kept_than_was_announced() -> None:
    """Announced 2, kept ever more: first as they are, then compact, then refused."""
    budget = int(4.8 * BYTES["full"])
    store = ResidualStore("auto", lambda _: budget, 2)
    kept: list[Any] = []
    with pytest.raises(StoreFullError, match=r"0 MiB on cpu.*computed in full"):
        while True:
            kept.append(store.put(hidden(len(kept))))
            assert store.held(CPU) <= budget
    assert store.placement == "cpu, then cpu (bf16), then cpu (fp8)"
    assert store.held(CPU) == sum(bytes_of(list(k.tensors)) for k in kept)
    assert budget - store.held(CPU) < BYTES["fp8"]


@pytest.fixture
def no_fp8(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The CPU as a device without fp8, such as Apple's GPUs."""

    def unknown(tensor: torch.Tensor) -> Any:
        raise TypeError("Trying to convert Float8_e4m3fn to a backend without support for it")

    monkeypatch.setattr(compact, "_to_fp8", unknown)
    compact.coarsest_on.cache_clear()
    yield
    compact.coarsest_on.cache_clear()


@pytest.mark.parametrize("mode", ["auto", "gpu_fp8", "cpu_fp8"])
def test_a_device_without_fp8_gets_none(no_fp8: None, mode: str) -> None:
    """Not as auto's last resort either, when nothing has room for everything."""
    store = ResidualStore(mode, lambda _: 2 * BYTES["bf16"], 4)
    kept = [store.put(hidden(seed)) for seed in range(2)]
    assert [k.tensors[0].dtype for k in kept] == [torch.bfloat16] * 2
    assert store.placement == "cpu (bf16)"
    if mode == "auto":
        with pytest.raises(StoreFullError):
            store.put(hidden())


def test_a_lack_of_memory_does_not_take_fp8_from_a_device(monkeypatch: pytest.MonkeyPatch) -> None:
    def starved(*_: Any) -> Any:
        raise torch.OutOfMemoryError("simulated")

    compact.coarsest_on.cache_clear()
    with monkeypatch.context() as patch, pytest.raises(torch.OutOfMemoryError):
        patch.setattr(compact, "_to_fp8", starved)
        compact.coarsest_on(CPU)
    assert compact.coarsest_on(CPU) == "fp8"


def test_what_the_user_chose_has_no_budget() -> None:
    store = ResidualStore("gpu_fp8", lambda _: 0, 1)
    assert bytes_of(list(store.put(hidden()).tensors)) == BYTES["fp8"]


FORECASTS = [("none", 1), ("blend", 1)]
FORECASTS += [(kind, order) for kind in ("taylorseer", "trajectory") for order in (1, 2)]


def fed(kind: str, order: int, mode: str) -> tuple[Any, torch.Tensor]:
    """A forecast that has seen a slowly turning residual, and what it says comes next."""
    forecast = make_forecast(kind, order, ResidualStore(mode, lambda _: 0, 1))
    for k in range(6):
        state = hidden(0) + 0.1 * k * hidden(1)
        forecast.update(float(k), {"image": state}, state * 0.5)
    signal = (hidden(0) + 0.7 * hidden(1)) * 0.5
    return forecast, forecast.predict(7.0, signal)["image"]


@pytest.mark.parametrize(("kind", "order"), FORECASTS)
@pytest.mark.parametrize(("mode", "most"), [("cpu", 1e-6), ("gpu_bf16", 0.03), ("cpu_fp8", 0.35)])
def test_every_forecast_works_with_every_storage(
    kind: str, order: int, mode: str, most: float
) -> None:
    exact, compact = fed(kind, order, "gpu")[1], fed(kind, order, mode)[1]
    assert compact.dtype == exact.dtype and compact.shape == exact.shape
    error = float((compact - exact).norm() / exact.norm())
    assert error <= most
    assert (error > 0) == (mode != "cpu"), "a compact store that changes nothing stored nothing"


@pytest.mark.parametrize(
    ("kind", "order", "tensors"),
    # By hand: the last one; those of the last order + 1; the same, each with its signal.
    [("none", 1, 1), ("taylorseer", 1, 2), ("taylorseer", 2, 3), ("trajectory", 1, 4)],
)
@pytest.mark.parametrize("mode", ["gpu", "gpu_bf16", "gpu_fp8"])
def test_a_forecast_holds_as_many_bytes_as_computed_by_hand(
    kind: str, order: int, tensors: int, mode: str
) -> None:
    forecast, _ = fed(kind, order, mode)
    assert bytes_of(forecast.tensors()) == tensors * BYTES[mode[4:] or "full"]


@pytest.mark.gpu
@pytest.mark.parametrize("mode", ["gpu", "cpu", "gpu_fp8", "cpu_fp8", "cpu_bf16"])
def test_on_cuda_copies_are_right_though_nobody_waits(mode: str) -> None:
    """The source's memory is given away and written over at once, as sampling does."""
    device = torch.device("cuda")
    store = ResidualStore(mode, lambda _: 0, 1)
    expected = ResidualStore(mode, lambda _: 0, 1)
    big = [torch.randn(1, 4096, 1024, device=device) for _ in range(4)]
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        for _ in range(20):
            kept = [store.put(tensor * 2) for tensor in big]
            for _ in big:  # takes the memory that the products gave back
                torch.full((1, 4096, 1024), torch.nan, device=device)
            back = [store.get(k, device) for k in kept]
            del kept
    finally:
        torch.cuda.set_sync_debug_mode("default")
    for tensor, got in zip(big, back, strict=True):
        assert torch.equal(got, expected.get(expected.put(tensor * 2), device))


@pytest.mark.gpu
def test_on_cuda_auto_goes_from_the_device_to_pinned_memory_to_compact_forms() -> None:
    device = torch.device("cuda")
    tensor = hidden().to(device)
    rooms = {"cuda": 2 * BYTES["full"], "cpu": 2 * BYTES["full"]}
    for announced, placement in [(2, "gpu"), (3, "gpu (bf16)"), (5, "gpu (fp8)")]:
        store = ResidualStore("auto", lambda d: rooms[d.type], announced)
        assert torch.allclose(store.get(store.put(tensor), device), tensor, rtol=0.07, atol=0.1)
        assert store.placement == placement
    store = ResidualStore("auto", lambda d: {"cuda": 0, "cpu": 2**30}[d.type], 2)
    kept = store.put(tensor)
    assert store.placement == "cpu" and kept.tensors[0].is_pinned() and kept.ready is not None

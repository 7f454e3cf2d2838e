"""Performance Mode's decisions as plain functions."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch

from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.families import Structure
from dit_acceleration_pack.acceleration.performance import PerformanceSettings, compiling, residency
from dit_acceleration_pack.acceleration.performance.residency import GB, Memory
from dit_acceleration_pack.acceleration.policies.base import RunInfo
from dit_acceleration_pack.acceleration.policies.cost import Cost
from dit_acceleration_pack.acceleration.policies.planned import MOST_RISING, Planned
from dit_acceleration_pack.acceleration.schedule import Schedule

FLUX, WITH_TEXT = 12 * GB, 17 * GB
IMAGE, VIDEO = 45.0, 120.0


@pytest.mark.parametrize(
    ("free", "family", "placement", "reason"),
    [
        (4, IMAGE, residency.HOST, "more than 80%"),
        (8, IMAGE, residency.HOST, "more than 80%"),
        (16, IMAGE, residency.HOST, "fit into 16.0 GB"),
        (24, IMAGE, residency.HOST, "fit into 24.0 GB"),
        (24, 20.0, residency.RESIDENT, "at least the 20 GB of this family"),
        (40, VIDEO, residency.RESIDENT, "at least twice all weights"),
        (80, IMAGE, residency.RESIDENT, "at least twice all weights"),
    ],
)
def test_auto_by_free_memory(free: int, family: float, placement: str, reason: str) -> None:
    found = residency.decide("auto", Memory(free * GB, FLUX, WITH_TEXT), family)
    assert found.placement == placement and reason in found.why
    assert found.loads_whole == (placement == residency.RESIDENT)
    assert not found.offloads, "auto never empties the device"


def test_auto_keeps_a_large_transformer_from_the_family_threshold_on() -> None:
    memory = Memory(50 * GB, 40 * GB, 60 * GB)
    assert residency.decide("auto", memory, 45.0).placement == residency.RESIDENT
    assert residency.decide("auto", memory, 60.0).placement == residency.HOST


@pytest.mark.parametrize("free", [4, 8, 16, 24, 80])
def test_speed_loads_whole_only_what_fits(free: int) -> None:
    found = residency.decide("speed", Memory(free * GB, FLUX, WITH_TEXT), IMAGE)
    assert found.loads_whole == (free >= 16)
    assert f"{free}.0 GB" in found.why


@pytest.mark.parametrize("free", [4, 80])
def test_memory_streams_always(free: int) -> None:
    found = residency.decide("memory", Memory(free * GB, FLUX, WITH_TEXT), IMAGE)
    assert found.offloads and not found.loads_whole


def test_compiling_only_where_it_pays(monkeypatch: pytest.MonkeyPatch) -> None:
    verdict = compiling.verdict
    assert verdict("auto", "cuda", True, 50, False) == "", "never a surprise"
    assert "kept" in verdict("speed", "cuda", True, 50, True)
    assert "no working compiler" in verdict("speed", "cpu", True, 50, False)
    monkeypatch.setattr(compiling, "has_compiler", lambda device: True)
    assert "too short" in verdict("speed", "cuda", True, 8, False)
    assert "too short" in verdict("speed", "cuda", False, 50, False)
    assert compiling.compiles(verdict("speed", "cuda", True, 50, False))


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"mode": "turbo"}, ("mode", "turbo", "auto, speed, memory, manual")),
        ({"approximation": "extreme"}, ("approximation", "extreme", "balanced")),
        ({"target_speedup": 0.5}, ("target_speedup", "0.5", "between 1")),
        ({"target_speedup": 99.0}, ("target_speedup", "99", "10")),
    ],
)
def test_bad_settings_get_a_sentence(values: dict, words: tuple[str, ...]) -> None:
    with pytest.raises(AccelerationError) as error:
        PerformanceSettings(**values)
    assert all(word in str(error.value) for word in words)


def test_speedups_grow_with_the_presets() -> None:
    names = ("quality", "balanced", "fast", "ultra")
    speedups = [PerformanceSettings(approximation=name).speedup for name in names]
    assert speedups == sorted(speedups) and speedups[0] > 1
    assert PerformanceSettings(approximation="off").speedup is None
    assert PerformanceSettings(approximation="target", target_speedup=2.2).speedup == 2.2
    with pytest.raises(AccelerationError):
        Planned(0.9, "target")


def test_presets_plan_for_less_where_there_are_fewer_steps() -> None:
    presets = [
        PerformanceSettings(approximation=n) for n in ("quality", "balanced", "fast", "ultra")
    ]
    planned = [Planned(preset.speedup, preset.approximation) for preset in presets]
    for steps in (28, 50, 100):
        assert [each.speedup_at(steps) for each in planned] == [each.speedup for each in planned]
    # As web/docs/AccelPerformanceMode.md says.
    assert [each.speedup for each in planned] == [1.5, 2.0, 2.5, 3.0]
    at_20 = [each.speedup_at(20) for each in planned]
    assert at_20 == pytest.approx([1.45, 1.9, 2.4, 2.85], abs=0.05)
    assert all(1 < each.speedup_at(8) < fewer for each, fewer in zip(planned, at_20, strict=True))
    assert Planned(2.0, "target", strict=True).speedup_at(8) == 2.0


def test_a_run_that_adds_noise_is_planned_for_no_more_than_plans_are_good_for() -> None:
    network = torch.nn.Module()
    family: Any = SimpleNamespace(stacks=[])

    def info(sigmas: list[float]) -> RunInfo:
        return RunInfo(Schedule.from_sigmas(sigmas), Structure(family, ()), "euler", network)

    falling = info([1 - step / 28 for step in range(29)])
    rising = info([step / 28 for step in range(29)])
    for run in (falling, rising):
        vars(run)["cost"] = Cost(1.0, 0.1)
    for wanted, strict in ((2.7, False), (3.0, True)):
        planned = Planned(wanted, "fast", strict)
        # 28 steps, so a preset plans for its whole speed-up: (1 / speed-up - 0.1) / 0.9.
        assert planned.share(falling) == pytest.approx((1 / wanted - 0.1) / 0.9)
        assert planned.share(rising) == pytest.approx((1 / MOST_RISING - 0.1) / 0.9)
        told = f"this schedule adds noise, which plans do not know yet: {MOST_RISING:g} times"
        assert told in planned.advice(rising)
        assert planned.advice(falling) == ""
    modest = Planned(1.3, "target", strict=True)
    assert modest.share(rising) == modest.share(falling), "the cap is no speed-up to aim at"
    assert modest.advice(rising) == ""

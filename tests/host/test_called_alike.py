"""Evaluations that are called alike and are not: tiles, second passes, pictures side by side.

Whatever a pack does around the model, no residual is used where another evaluation made it, and the
picture stays about as near to its own full run as without the trick.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import pytest
import tiny_models as tm
import torch
from tricks import TRICKS, Bench, Owners
from whole import whole

from benchmark_script import benchmark_script
from comfyui_environment import ROOT

MOST_UNLIKE = (
    "tiles whose number changes",
    "second pass by a flag",
)
MODELS = ROOT / "workflows" / "demo" / "models"
LOSS = 12.0
"""dB that a picture may lose by a trick."""
ENOUGH = 60.0
"""dB above which nothing more is asked for."""


def performance(approximation: str) -> Callable[[Any], Any]:
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.performance import PerformanceSettings

    settings = PerformanceSettings(approximation=approximation)
    return lambda model: host.attach_performance(model, settings)


def tea_cache(model: Any) -> Any:
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
    from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

    return host.attach(model, TeaCache(TeaCacheSettings()))


LEVERS: dict[str, Callable[[Any], Any]] = {
    "balanced": performance("balanced"),
    "static": lambda model: tm.attach(model, scm_preset="fast", scm_policy="static"),
    "cache-dit": tm.attach,
    "teacache": tea_cache,
}


def never(model: Any) -> Any:
    return tm.attach(model, residual_diff_threshold=0.0)


@functools.cache
def bench() -> Bench:
    import comfy.sd
    import comfy.utils

    shapes = benchmark_script("../workflows/demo/shapes")
    weights = comfy.utils.load_torch_file(str(MODELS / "dit_accel_demo_flux.safetensors"))
    model = comfy.sd.load_diffusion_model_state_dict(weights)

    def conditioning(text: str) -> list[Any]:
        tokens, pooled = shapes.text_embedding(text)
        return [[tokens, {"pooled_output": pooled}]]

    positive, negative = conditioning(shapes.PROMPTS[0]), conditioning(shapes.UNCONDITIONAL)
    return Bench(model, positive, negative)


def sample(trick: str, lever: Callable[[Any], Any], owners: Owners) -> tuple[torch.Tensor, Any]:
    """The pictures ``[B, C, H, W]`` of a trick on an accelerated model, and the report."""
    found = TRICKS[trick]
    accelerated = lever(bench().model)
    model = found.build(accelerated, owners)
    pictures = bench().sample(model, **found.options(bench(), owners))
    return pictures, tm.report_of(model)


@functools.cache
def full(trick: str) -> torch.Tensor:
    return sample(trick, lambda model: model, Owners())[0]


@functools.cache
def without_a_trick(alone: Callable[..., dict[str, Any]], lever: str) -> float:
    """How near an accelerated picture comes without the trick, which many tricks share."""
    options = alone(bench(), lambda _: None)
    plain = bench().sample(bench().model, **options)
    return tm.psnr(plain, bench().sample(LEVERS[lever](bench().model), **options))


def check(trick: str, lever: str, monkeypatch: pytest.MonkeyPatch) -> Any:
    owners = Owners()
    owners.watch(monkeypatch)
    pictures, report = sample(trick, LEVERS[lever], owners)
    assert pictures.isfinite().all()
    assert not owners.crossed
    found = [tm.psnr(a[None], b[None]) for a, b in zip(full(trick), pictures, strict=True)]
    floor = min(without_a_trick(TRICKS[trick].alone, lever), ENOUGH) - LOSS
    assert min(found) > floor, (found, floor)
    again, _ = sample(trick, LEVERS[lever], owners)
    assert torch.equal(again, pictures), "run 2 = run 1"
    return report


@pytest.mark.parametrize(
    ("lever", "trick"),
    [
        *[("static", trick) for trick in MOST_UNLIKE],
        *whole(("static", trick) for trick in TRICKS if trick not in MOST_UNLIKE),
        *whole(("balanced", trick) for trick in TRICKS),
    ],
)
def test_no_residual_crosses(trick: str, lever: str, monkeypatch: pytest.MonkeyPatch) -> None:
    report = check(trick, lever, monkeypatch)
    assert report.skipped > 0.3 * len(report.evaluations), "it is still worth its while"


@pytest.mark.parametrize("trick", [*MOST_UNLIKE, *whole(t for t in TRICKS if t not in MOST_UNLIKE)])
def test_nothing_skipped_nothing_changed(trick: str) -> None:
    assert torch.equal(sample(trick, never, Owners())[0], full(trick))


@pytest.mark.parametrize("trick", ["tiles", *whole(MOST_UNLIKE)])
@pytest.mark.parametrize("lever", ["teacache", *whole(["cache-dit"])])
def test_thresholds_neither(trick: str, lever: str, monkeypatch: pytest.MonkeyPatch) -> None:
    check(trick, lever, monkeypatch)


@pytest.mark.whole
def test_cond_and_uncond_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    with tm.split_batches(bench().model):
        check("two pictures, cfg 3", "balanced", monkeypatch)


def test_the_report_says_so_and_counts_calls_of_the_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    report = check("network called three times", "static", monkeypatch)
    assert len(report.evaluations) == 3 * 20
    assert [b["name"] for b in report.branches()] == ["cond", "cond (call 2)", "cond (call 3)"]
    report = check("tiles", "static", monkeypatch)
    assert [b["name"] for b in report.branches()] == ["cond", "cond #2", "cond #3", "cond #4"]
    assert any("called alike" in notice for notice in report.notices)


def test_the_watch_would_see_a_crossing(monkeypatch: pytest.MonkeyPatch) -> None:
    from dit_acceleration_pack.acceleration.sampling import branches, tracks

    monkeypatch.setattr(
        branches, "choose", lambda found, *_: tracks.Choice(found[0] if found else None)
    )
    with pytest.raises(AssertionError):
        check("tiles", "static", monkeypatch)

"""Branches never mix: a residual is only ever used for the conds that it was computed for."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tm
import torch

STATIC: dict[str, Any] = {"scm_preset": "fast", "scm_policy": "static"}


class WhoseResidual:
    """Watches every residual: which prompt it was computed for, and which it is used for.

    The prompt is known from the content of the text conditioning of each evaluation, which the
    engine does not look at.
    """

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        from dit_acceleration_pack.acceleration.sampling import branches

        self.now: Any = None
        self.used = 0
        self.mixed: list[Any] = []
        make = branches.make_forecast
        outer = self

        def watched(*args: Any) -> Any:
            forecast = make(*args)
            owner: list[Any] = []
            update, predict = forecast.update, forecast.predict

            def spy_update(position: float, residual: Any, signal: Any) -> None:
                owner.append(outer.now)
                update(position, residual, signal)

            def spy_predict(position: float, signal: Any) -> Any:
                outer.used += 1
                if set(owner) != {outer.now}:
                    outer.mixed.append((owner, outer.now))
                return predict(position, signal)

            forecast.update, forecast.predict = spy_update, spy_predict
            return forecast

        monkeypatch.setattr(branches, "make_forecast", watched)

    def before(self, x: torch.Tensor, context: torch.Tensor, options: dict[str, Any]) -> None:
        prompts = tuple(round(float(c.double().sum()), 4) for c in context)
        self.now = (tuple(x.shape), prompts)


def run_watched(monkeypatch: pytest.MonkeyPatch, name: str = "flux", **options: Any) -> Any:
    watch = WhoseResidual(monkeypatch)
    settings = options.pop("settings", STATIC)
    accelerated = tm.watch(tm.attach(tm.make_model(name), **settings), watch.before)
    output = tm.sample(accelerated, name, **options)
    assert output.isfinite().all()
    assert watch.used >= 3
    assert not watch.mixed
    return tm.report_of(accelerated), output


def test_joined(monkeypatch: pytest.MonkeyPatch) -> None:
    report, _ = run_watched(monkeypatch, steps=12, cfg=3.0)
    assert len(report.branches()) == 1
    assert len(report.evaluations) == 12


@pytest.mark.parametrize("name", ["flux", "wan"])
def test_split_gives_the_same_picture_as_joined(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    _, joined = run_watched(monkeypatch, name, steps=12, cfg=3.0)
    model = tm.make_model(name)
    with tm.split_batches(model):
        report, split = run_watched(monkeypatch, name, steps=12, cfg=3.0)
    assert {b["name"] for b in report.branches()} == {"cond", "uncond"}
    assert len(report.evaluations) == 24
    assert tm.psnr(joined, split) > 100


@pytest.mark.parametrize("period", [1, 2, 3, 5])
def test_changing_between_joined_and_split(period: int, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tm.make_model("flux")
    with tm.split_batches(model, when=lambda call: call // period % 2 == 1):
        report, _ = run_watched(
            monkeypatch,
            steps=20,
            cfg=3.0,
            settings={"residual_diff_threshold": 0.95, "max_continuous_cached_steps": -1},
        )
    assert len(report.branches()) >= 2


def test_swapped_order_of_the_same_conds(monkeypatch: pytest.MonkeyPatch) -> None:
    """With cfg on, the host's joined batch may come in either order."""
    from dit_acceleration_pack.acceleration import host

    a = host.branch_key(torch.zeros(2, 1), {"uuids": ["a", "b"], "cond_or_uncond": [0, 1]})
    b = host.branch_key(torch.zeros(2, 1), {"uuids": ["b", "a"], "cond_or_uncond": [1, 0]})
    assert a != b


def regional(name: str) -> list[Any]:
    """Two prompts for the left and the right half, and one for all."""
    tensors = [tm.conditioning(name, seed)[0] for seed in (1, 5, 6)]
    areas = [None, (8, 4, 0, 0), (8, 4, 0, 4)]
    return [
        [c, {**options, **({"area": area, "strength": 1.0} if area else {})}]
        for (c, options), area in zip(tensors, areas, strict=True)
    ]


def test_regional_prompts(monkeypatch: pytest.MonkeyPatch) -> None:
    """The host gives a regional prompt's negative the uuid of its positive."""
    model = tm.make_model("flux")
    with tm.split_batches(model):
        report, _ = run_watched(monkeypatch, steps=12, cfg=3.0, positive=regional("flux"))
    assert len(report.evaluations) == 12 * 6


def test_the_watch_would_see_a_mix(monkeypatch: pytest.MonkeyPatch) -> None:
    """The counterpart: with one branch for everything the watch reports a mix."""
    from dit_acceleration_pack.acceleration.host import caching
    from dit_acceleration_pack.acceleration.sampling import branches, tracks

    monkeypatch.setattr(caching, "branch_key", lambda x, *_: tuple(x.shape))
    monkeypatch.setattr(
        branches, "choose", lambda found, *_: tracks.Choice(found[0] if found else None)
    )
    model = tm.make_model("flux")
    with tm.split_batches(model), pytest.raises(AssertionError):
        run_watched(monkeypatch, steps=12, cfg=3.0)


def test_context_windows_keep_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    """Sliding windows repeat the same uuids; the window tells which is which."""
    model = tm.make_model("wan")
    handler = tm.context_windows("standard_static", 4, 1)
    model.model_options["context_handler"] = handler
    accelerated = tm.attach(model, **STATIC)
    output = tm.sample(accelerated, "wan", steps=10, latent=(16, 7, 8, 8))
    report = tm.report_of(accelerated)
    assert output.isfinite().all()
    assert len(report.branches()) == 2
    assert report.skipped >= 4


def test_windows_that_moved_on_are_forgotten() -> None:
    """Uniform schedules shift their windows with the step; old residuals must not pile up."""
    model = tm.make_model("wan")
    handler = tm.context_windows("standard_uniform", 4, 2, stride=2)
    plain = tm.attach(model)
    tm.sample(plain, "wan", steps=16, latent=(16, 4, 8, 8))
    model.model_options["context_handler"] = handler
    accelerated = tm.attach(model)
    tm.sample(accelerated, "wan", steps=16, latent=(16, 13, 8, 8))
    report = tm.report_of(accelerated)
    windows_seen = len(report.branches())
    assert windows_seen >= 5
    held = report.residual_peak_bytes / tm.report_of(plain).residual_peak_bytes
    assert held < 3 * len(report.evaluations) / 16, "no more than the windows of a few steps"


def test_a_control_that_ends_in_mid_run_is_another_branch() -> None:
    from dit_acceleration_pack.acceleration import host

    x, options = torch.zeros(1, 1), {"uuids": ["a"], "cond_or_uncond": [0]}
    add = torch.zeros(1)
    keys = {
        host.branch_key(x, options, None),
        host.branch_key(x, options, {"input": [add], "output": []}),
        host.branch_key(x, options, {"input": [None, add], "output": []}),
        host.branch_key(x, options, {"input": [add], "output": [add]}),
    }
    assert len(keys) == 4


def test_a_paused_branch_computes_before_it_reuses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Joined, then split for some steps, then joined: the joined residual is too old by then."""
    model = tm.make_model("flux")
    with tm.split_batches(model, when=lambda call: 8 <= call < 24):
        report, _ = run_watched(monkeypatch, steps=28, cfg=3.0)
    joined = [e for e in report.evaluations if "+" in e.branch]
    pauses = [i for i in range(1, len(joined)) if joined[i].step > joined[i - 1].step + 1]
    assert len(pauses) == 1
    assert not joined[pauses[0]].skipped

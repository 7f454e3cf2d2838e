"""After a run, an error or Cancel nothing is left: no attribute, no tensor, no memory of before."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
import tiny_models as tm
import torch
from whole import whole

pytestmark = pytest.mark.every_host

SETTINGS: dict[str, Any] = {"residual_diff_threshold": 0.9, "calibrator": "taylorseer"}


class BlockError(Exception):
    """Raised in a block."""


def attributes(model: Any) -> dict[str, set[str]]:
    return {name: set(vars(module)) for name, module in model.model.named_modules()}


def skips(model: Any) -> list[bool]:
    return [e.skipped for e in tm.report_of(model).evaluations]


def fail_at(model: Any, call: int, error: BaseException) -> Any:
    """Make the second block's first linear layer raise at its n-th call; returns the hook."""
    block = model.model.diffusion_model.double_blocks[1]
    inner = next(m for m in block.modules() if isinstance(m, torch.nn.Linear))
    seen = [0]

    def hook(*_: Any) -> None:
        seen[0] += 1
        if seen[0] == call:
            raise error

    return inner.register_forward_pre_hook(hook)


def disturbances() -> list[Any]:
    """What may happen between two runs of the same sample."""

    def other_size(model: Any) -> None:
        tm.sample(model, "flux", latent=(16, 12, 8))

    def other_sampler(model: Any) -> None:
        tm.sample(model, "flux", sampler="dpmpp_2m", cfg=3.0, steps=7)

    def other_batch(model: Any) -> None:
        tm.sample(model, "flux", batch=2)

    def exception(model: Any) -> None:
        hook = fail_at(model, 6, BlockError())
        with pytest.raises(BlockError):
            tm.sample(model, "flux")
        hook.remove()
        assert tm.report_of(model).outcome == "interrupted"

    def cancel(model: Any) -> None:
        import comfy.model_management

        error = comfy.model_management.InterruptProcessingException()
        hook = fail_at(model, 4, error)
        with pytest.raises(comfy.model_management.InterruptProcessingException):
            tm.sample(model, "flux")
        hook.remove()

    return [other_size, other_sampler, other_batch, exception, cancel]


@pytest.mark.parametrize("disturb", disturbances(), ids=lambda f: f.__name__)
def test_run_two_is_run_one(disturb: Any) -> None:
    model = tm.make_model("flux")
    plain = tm.sample(model, "flux")
    before = attributes(model)  # only now: the host notes things on its modules when it loads them
    accelerated = tm.attach(model, **SETTINGS)
    first = tm.sample(accelerated, "flux")
    decisions = skips(accelerated)
    assert any(decisions)
    for _ in range(2):
        disturb(accelerated)
        assert attributes(model) == before
        assert torch.equal(tm.sample(accelerated, "flux"), first)
        assert skips(accelerated) == decisions
        assert torch.equal(tm.sample(model, "flux"), plain)


@pytest.mark.parametrize("calibrator", ["blend", *whole(["none", "taylorseer", "trajectory"])])
@pytest.mark.parametrize("ending", ["finished", "exception", "cancel"])
def test_no_cached_tensor_survives(
    calibrator: str, ending: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dit_acceleration_pack.acceleration.sampling import gate_steps

    kept: list[weakref.ref[torch.Tensor]] = []
    take = gate_steps.capture

    def spy(self: Any, stack: Any, output: Any) -> None:
        take(self, stack, output)
        kept.append(weakref.ref(self.now.signal))
        kept.extend(weakref.ref(value) for value in self.now.residual.values())

    monkeypatch.setattr(gate_steps, "capture", spy)
    model = tm.make_model("flux")
    accelerated = tm.attach(model, residual_diff_threshold=0.9, calibrator=calibrator)
    if ending == "finished":
        tm.sample(accelerated, "flux")
    else:
        disturb = {f.__name__: f for f in disturbances()}[ending]
        disturb(accelerated)
    gc.collect()
    assert len(kept) >= 6
    assert not [ref for ref in kept if ref() is not None]


def test_the_report_holds_no_tensor() -> None:
    accelerated = tm.attach(tm.make_model("flux"), **SETTINGS)
    tm.sample(accelerated, "flux")
    pending: list[Any] = [tm.report_of(accelerated).as_dict()]
    while pending:
        value = pending.pop()
        assert isinstance(value, dict | list | str | int | float | bool | None)
        pending += list(value.values()) if isinstance(value, dict) else []
        pending += value if isinstance(value, list) else []


def test_a_second_node_replaces_the_first_and_says_so() -> None:
    model = tm.make_model("flux")
    twice = tm.attach(tm.attach(model, **SETTINGS), residual_diff_threshold=1e-12)
    assert torch.equal(tm.sample(twice, "flux"), tm.sample(model, "flux"))
    report = tm.report_of(twice)
    assert report.skipped == 0 and len(report.evaluations) == 10
    assert any("replaced Cache-DiT" in notice for notice in report.notices)


def test_clones_made_later_share_the_report_and_the_original_has_none() -> None:
    model = tm.make_model("flux")
    accelerated = tm.attach(model, **SETTINGS)
    later = accelerated.clone()
    tm.sample(later, "flux")
    assert tm.report_of(accelerated) is tm.report_of(later)
    assert tm.report_of(model) is None


def test_tensors_of_an_evaluation_go_without_the_garbage_collector(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A reference cycle would pile up hidden states in VRAM until the collector comes by."""
    from dit_acceleration_pack.acceleration.sampling import run

    alive: list[weakref.ref[Any]] = []
    most = [0]

    class Watched(run.Evaluation):
        def __init__(self, *args: Any) -> None:
            super().__init__(*args)
            alive.append(weakref.ref(self))
            most[0] = max(most[0], sum(ref() is not None for ref in alive))

    monkeypatch.setattr(run, "Evaluation", Watched)
    accelerated = tm.attach(tm.make_model("flux"), **SETTINGS)
    gc.disable()
    try:
        tm.sample(accelerated, "flux")
    finally:
        gc.enable()
    assert len(alive) == 10 and most[0] == 1

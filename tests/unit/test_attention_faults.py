"""What goes wrong in attention harms no picture: memory, faults of our own, overrides in a ring."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import attention_calls as calls
import pytest
import torch

from dit_acceleration_pack.acceleration.attention import (
    AttentionRun,
    AttentionSettings,
    probe,
    race,
    router,
)
from dit_acceleration_pack.acceleration.attention.backend import Backend
from dit_acceleration_pack.acceleration.attention.call import Arguments
from dit_acceleration_pack.acceleration.attention.limits import Limits
from dit_acceleration_pack.acceleration.attention.planner import Planner
from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.lack_of_memory import recovery

CPU = torch.device("cpu")
KWARGS: dict[str, Any] = {"skip_reshape": True}


def host(q: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """A host's function whose result is known again."""
    return torch.full_like(q, 7)


def starved(*_: Any, **__: Any) -> Any:
    raise torch.OutOfMemoryError("simulated")


def started(backend: str = "sdpa_math", kernel: Any = None) -> AttentionRun:
    """A run whose plan is made, with another kernel in it."""
    run = AttentionRun(AttentionSettings(backend=backend))
    run.attend(calls.refuse, (*calls.made(), 4), KWARGS)
    if kernel is not None:
        (state,) = run._devices.values()
        for plan in state.plans.values():
            plan.kernel = kernel
    return run


def served(run: AttentionRun) -> bool:
    """Whether a call gets what attention gives."""
    args = (*calls.made(), 4)
    out = run.attend(calls.refuse, args, KWARGS)
    return calls.error(out, calls.reference(args, KWARGS)) < calls.BOUND[torch.float32]


def test_a_lack_of_memory_passes_where_somebody_can_free_some() -> None:
    """The kernel is not given up: it serves the call when that comes again."""
    tried: list[int] = []

    def once(q: Any, k: Any, v: Any, *_: Any) -> Any:
        tried.append(1)
        if len(tried) == 1:
            starved()
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    run = started(kernel=once)
    with recovery(lambda: True), pytest.raises(torch.OutOfMemoryError):
        served(run)
    assert served(run)
    assert run.close(True).counts == {("sdpa_math", ""): 2}


def test_where_nobody_can_another_kernel_serves() -> None:
    run = started(kernel=starved)
    with recovery(lambda: False):
        assert served(run)
    assert served(run)
    report = run.close(True)
    assert report.counts["sdpa_math", ""] == 1
    ((why, count),) = [(w, n) for (b, w), n in report.counts.items() if b == "sdpa"]
    assert count == 2 and "OutOfMemoryError" in why and not report.failed


def test_other_errors_of_a_kernel_do_not_pass() -> None:
    def broken(*_: Any) -> Any:
        raise RuntimeError("an illegal memory access was encountered")

    run = started(kernel=broken)
    with recovery(lambda: True):
        assert served(run)


def test_the_fallback_finds_the_memory_of_the_failed_kernel_free() -> None:
    """An error that is being handled keeps every tensor of its traceback alive."""
    import gc
    import weakref

    made: list[weakref.ref[torch.Tensor]] = []

    def large(*_: Any) -> Any:
        scores = torch.zeros(8)
        made.append(weakref.ref(scores))
        starved()

    run = started(kernel=large)
    planned = Planner.plan
    alive: list[bool] = []

    def plan(self: Any, *args: Any) -> Any:
        gc.collect()
        alive.append(made[0]() is not None)
        return planned(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Planner, "plan", plan)
        assert served(run)
    assert alive == [False]


def test_a_lack_of_memory_is_no_finding_about_a_package() -> None:
    kernels = [starved, torch.nn.functional.scaled_dot_product_attention]

    def kernel(q: Any, k: Any, v: Any, *_: Any) -> Any:
        return kernels[0](q, k, v)

    backend = Backend("mine", "Mine", Limits(), lambda: kernel)
    probe.forget()
    report = AttentionRun(AttentionSettings()).report
    planner = Planner(AttentionSettings(), report, {}, True)
    with recovery(lambda: True), pytest.raises(torch.OutOfMemoryError):
        planner._finding(backend, CPU, torch.float32)
    assert "memory ran out" in planner._finding(backend, CPU, torch.float32).reason
    kernels.pop(0)
    assert planner._finding(backend, CPU, torch.float32).reason == ""
    probe.forget()


def test_a_race_without_memory_is_not_remembered(monkeypatch: pytest.MonkeyPatch) -> None:
    def run(name: str) -> torch.Tensor:
        return starved() if name == "hungry" else torch.ones(4)

    outcome = race.race(["first", "hungry"], run, CPU, lambda _: 0.01)
    assert outcome.winner == "first" and outcome.starved
    with recovery(lambda: True), pytest.raises(torch.OutOfMemoryError):
        race.race(["first", "hungry"], run, CPU, lambda _: 0.01)
    memory: race.Memory = {}
    auto = AttentionRun(AttentionSettings(backend="auto"), None, memory)
    auto.attend(starved_twin, (*calls.made(), 4), KWARGS)
    assert not memory


def starved_twin(q: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """A host's function that has no memory for the race."""
    return starved()


# ------------------------------------------------------------------ faults of our own

PLACES = {
    "reading the call": (Arguments, "of"),
    "its signature": (Arguments, "signature"),
    "the state": (AttentionRun, "_state"),
    "the plan": (Planner, "plan"),
    "after a failure": (Planner, "failed"),
}


@pytest.mark.parametrize("place", PLACES)
def test_a_fault_of_ours_leaves_the_call_to_the_host(
    monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    run = AttentionRun(AttentionSettings(backend="sdpa_math"))
    if place == "after a failure":
        run = started(kernel=starved)
    run._state(CPU)
    if place == "the state":
        run._devices.clear()
    owner, name = PLACES[place]
    original = getattr(owner, name)
    tried: list[int] = []

    def faulty(*args: Any, **kwargs: Any) -> Any:
        tried.append(1)
        if len(tried) == 1 or place == "the plan":
            raise AttributeError(f"fault in {place}")
        return original(*args, **kwargs)

    monkeypatch.setattr(owner, name, faulty)
    q, k, v = calls.made()
    first, *_ = [run.attend(host, (q, k, v, 4), KWARGS) for _ in range(3)]
    assert torch.equal(first, torch.full_like(q, 7))
    report = run.close(True)
    (said,) = [notice for notice in report.notices if "went wrong" in notice]
    assert f"AttributeError: fault in {place}" in said and said in report.text()
    assert report.counts["default", "this node failed on it"] == (3 if place == "the plan" else 1)
    if place == "the plan":
        assert len(tried) == 1, "a plan that fails is not tried for every call"


def test_what_is_meant_for_others_passes() -> None:
    """The host's own errors, Cancel, and what on_unsupported asks for."""

    class Cancel(BaseException):
        pass

    for error in (ValueError("the model's own"), Cancel()):

        def failing(*_: Any, error: BaseException = error, **__: Any) -> Any:
            raise error

        run = AttentionRun(AttentionSettings(backend="default"))
        with pytest.raises(type(error)):
            run.attend(failing, (*calls.made(), 4), KWARGS)
        assert not run.close(False).failed
    with pytest.raises(Cancel):
        served(started(kernel=failing))
    run = AttentionRun(AttentionSettings(backend="sdpa_cudnn", on_unsupported="error"))
    with pytest.raises(AccelerationError, match="sdpa_cudnn cannot take"):
        run.attend(host, (*calls.made(), 4), KWARGS)


def test_a_run_that_is_over_takes_no_late_call() -> None:
    run = started()
    report = run.close(True)
    q, k, v = calls.made()
    assert torch.equal(run.attend(host, (q, k, v, 4), KWARGS), torch.full_like(q, 7))
    assert not run._devices and report.counts == {("sdpa_math", ""): 1}


def test_an_earlier_override_that_asks_us_in_turn_is_no_ring() -> None:
    def earlier(function: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return run.attend(function, args, kwargs) + 1

    run = AttentionRun(AttentionSettings(backend="sdpa"), earlier)
    q, k, v = calls.made()
    out = run.attend(host, (q, k, v, 4), KWARGS | {"window": 3})
    assert torch.equal(out, torch.full_like(q, 8))
    assert run.close(True).calls == 1


# ------------------------------------------------------------------ what the host records


def test_kernels_are_tried_and_raced_outside_of_what_the_host_records() -> None:
    """Their first calls leave workspaces behind, and happen in one evaluation only."""
    depth: list[int] = []
    entered = 0

    @contextlib.contextmanager
    def outliving() -> Iterator[None]:
        nonlocal entered
        assert not depth, "it is not to be nested"
        entered += 1
        depth.append(1)
        yield
        depth.pop()

    inside: list[bool] = []

    def raced(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, *_: Any, **__: Any) -> Any:
        inside.append(bool(depth))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)

    run = AttentionRun(AttentionSettings(backend="auto"), outliving=outliving)
    args = (*calls.made(), 4)
    for _ in range(3):
        run.attend(raced, args, KWARGS)
    assert entered == 1, "a plan is made once"
    assert inside[:2] == [True, True], "the host's function took part in the race"


def test_a_call_that_is_captured_is_left_to_the_host(monkeypatch: pytest.MonkeyPatch) -> None:
    """A kernel in the host's graph would serve whoever samples this model afterwards."""
    run = started()
    monkeypatch.setattr(router, "is_capturing", lambda _: True)
    args = (*calls.made(), 4)
    assert torch.equal(run.attend(host, args, KWARGS), host(args[0]))
    monkeypatch.setattr(router, "is_capturing", lambda _: False)
    assert served(run)
    report = run.close(True)
    assert report.counts == {("sdpa_math", ""): 2, ("default", router.CAPTURED): 1}
    assert "records this block as a CUDA graph" in report.sentence()

"""Caching under ComfyUI's own MultiGPU CFG Split, by its own scheduler and threads.

``cpu`` and ``cpu:1`` stand for two GPUs; torch takes both for the same device.
"""

from __future__ import annotations

import threading
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import tiny_models as tm
import torch
from split_factory import tiny

pytest.importorskip("comfy.multigpu", reason="this ComfyUI has no MultiGPU CFG Split")

from dit_acceleration_pack.acceleration.sampling import run as run_module
from dit_acceleration_pack.acceleration.sampling import side_by_side
from dit_acceleration_pack.acceleration.sampling.side_by_side import SideBySide

DEVICES = [torch.device("cpu"), torch.device("cpu", 1)]
SETTINGS = {"max_warmup_steps": 2, "residual_diff_threshold": 0.6}
RUN = {"steps": 12, "cfg": 3.0}


@pytest.fixture(autouse=True)
def two_devices(monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management

    monkeypatch.setattr(
        comfy.model_management, "get_all_torch_devices", lambda exclude_current=False: DEVICES
    )


@pytest.fixture
def runs(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Every caching run that was opened."""
    opened: list[Any] = []
    original = run_module.SamplingRun.__init__

    def opening(self: Any, *args: Any, **kwargs: Any) -> None:
        opened.append(self)
        original(self, *args, **kwargs)

    monkeypatch.setattr(run_module.SamplingRun, "__init__", opening)
    yield opened


def on_two(model: Any) -> Any:
    """A clone behind MultiGPU CFG Split."""
    import comfy.multigpu

    return comfy.multigpu.create_multigpu_deepclones(model, 2)


def networks(model: Any) -> list[Any]:
    clones = model.get_additional_models_with_key("multigpu")
    return [one.model.diffusion_model for one in (model, *clones)]


def pattern(report: Any) -> dict[str, str]:
    """Skipped evaluations of each branch, as ``x``."""
    found: defaultdict[str, str] = defaultdict(str)
    for one in report.evaluations:
        found[one.branch] += "x" if one.skipped else "."
    return found


def check_no_trace(model: Any) -> None:
    assert not [m for n in networks(model) for m in n.modules() if "forward" in vars(m)]


@pytest.mark.parametrize("order", ["before", "behind"])
def test_two_devices_sample_what_one_does_that_takes_the_prompts_apart(order: str) -> None:
    """Where the branches decide alike anyway."""
    settings = {"scm_preset": "medium", "scm_policy": "static"}
    model = tiny("flux")
    alone = tm.attach(model, **settings)
    with tm.split_batches(alone):
        want = tm.sample(alone, "flux", **RUN)
    split = on_two(alone) if order == "before" else tm.attach(on_two(model), **settings)
    first, second = networks(split)
    assert first is not second
    got = tm.sample(split, "flux", **RUN)
    assert pattern(tm.report_of(split)) == pattern(tm.report_of(alone))
    assert tm.report_of(split).skipped > 8
    assert torch.equal(got, want)
    assert torch.equal(tm.sample(split, "flux", **RUN), got)
    check_no_trace(split)


def test_branches_of_a_step_decide_together() -> None:
    model = tm.attach(tiny("flux"), **SETTINGS)
    with tm.split_batches(model):
        tm.sample(model, "flux", **RUN)
    alone = pattern(tm.report_of(model))
    assert alone["cond"] != alone["uncond"], "each for itself they do not"
    split = on_two(model)
    tm.sample(split, "flux", **RUN)
    report = tm.report_of(split)
    together = pattern(report)
    assert together["cond"] == together["uncond"] and "x" in together["cond"]
    assert any(e.reason == "another GPU computes" for e in report.evaluations)


def test_nobody_waits_for_a_thread_that_does_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    side, here = SideBySide(), threading.Barrier(2)

    def agree(answer: bool) -> bool:
        with side.evaluation():
            here.wait(60)
            found = side.agree(answer)
            here.wait(60)
        return found

    def undecided() -> None:
        with side.evaluation():
            here.wait(60)
        here.wait(60)

    def both(pool: ThreadPoolExecutor, answer: bool, other: Any, *args: Any) -> Any:
        side.begin()
        there = pool.submit(other, *args)
        return agree(answer), there.result(60)

    monkeypatch.setattr(side_by_side, "LONGEST_WAIT", 60.0)
    with ThreadPoolExecutor(1) as pool:
        both(pool, True, agree, True)  # From then on both are expected.
        assert both(pool, True, agree, True) == (True, True)
        assert both(pool, False, agree, True) == (False, False), "one computes, so both do"
        assert both(pool, True, undecided) == (True, None), "it was over without a decision"
        assert both(pool, True, agree, True) == (True, True)
    monkeypatch.setattr(side_by_side, "LONGEST_WAIT", 0.1)
    side.begin()
    with side.evaluation():
        assert side.agree(True), "the other one has not come"
    side.close()


def test_a_run_that_was_closed_takes_no_late_evaluation(
    runs: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The host gives its threads a few seconds when one of them fails, then goes on."""
    import comfy.multigpu

    pools: list[Any] = []

    def shut_down(pool: Any) -> None:
        pools.append(pool)
        for queue in pool._work_queues.values():
            queue.put(None)  # as the host does it, without the seconds

    monkeypatch.setattr(comfy.multigpu.MultiGPUThreadPool, "shutdown", shut_down)
    split = on_two(tm.attach(tiny("flux"), **SETTINGS))
    first, second = networks(split)
    inside, go_on, calls = threading.Event(), threading.Event(), Counter()

    def fail(*_: Any) -> None:
        calls["first"] += 1
        if calls["first"] == 6:
            inside.wait(60)
            raise RuntimeError("made on purpose")

    def linger(*_: Any) -> None:
        calls["second"] += 1
        if calls["second"] == 6:
            inside.set()
            go_on.wait(60)

    handles = [
        first.single_blocks[-1].register_forward_pre_hook(fail),
        second.single_blocks[-1].register_forward_pre_hook(linger),
    ]
    with pytest.raises(RuntimeError, match="made on purpose"):
        tm.sample(split, "flux", steps=12, cfg=3.0)
    (run,) = runs
    before = len(run.report.evaluations)
    go_on.set()
    for thread in pools[0]._workers:
        thread.join(60)
        assert not thread.is_alive()
    assert len(run.report.evaluations) == before
    assert not run._branches._all()
    check_no_trace(split)
    for handle in handles:
        handle.remove()
    tm.sample(split, "flux", steps=2, cfg=3.0)
    assert tm.report_of(split).outcome == "finished"

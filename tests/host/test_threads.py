"""Threads that sample one network at once, and evaluations that come too late."""

from __future__ import annotations

import functools
import threading
from collections.abc import Callable
from typing import Any

import pytest
import tiny_models as tm
import torch

from dit_acceleration_pack.acceleration.policies.cache_dit import CacheDiT
from dit_acceleration_pack.acceleration.sampling.course import Call
from dit_acceleration_pack.acceleration.sampling.gates import installed
from dit_acceleration_pack.acceleration.sampling.run import SamplingRun
from dit_acceleration_pack.acceleration.schedule import Schedule
from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings


class Memory:
    """As much as is asked for."""

    branches = 1
    device = "cpu"

    def room(self, device: torch.device) -> int:
        return 1 << 30

    def is_out_of_memory(self, error: BaseException) -> bool:
        return False


def at_once(*work: Callable[[], None]) -> list[BaseException]:
    """Run all in threads of their own that begin together; returns what they raised."""
    begin, errors = threading.Barrier(len(work)), []

    def one(step: Callable[[], None]) -> None:
        begin.wait()
        try:
            step()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=one, args=(step,)) for step in work]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return errors


@pytest.mark.parametrize("first_out", ["first", "second"])
def test_gates_of_two_threads_do_not_meet(first_out: str) -> None:
    block, x = torch.nn.Linear(2, 2), torch.ones(1, 2)
    plain = block(x)
    inside, out = threading.Barrier(3), {name: threading.Event() for name in ("first", "second")}
    seen: dict[str, torch.Tensor] = {}

    def thread(name: str, times: float) -> Callable[[], None]:
        def work() -> None:
            with installed([(block, lambda original, a, k: original(*a, **k) * times)]):
                inside.wait()
                seen[name] = block(x)
                out[name].wait()
            out["second" if name == "first" else "first"].set()

        return work

    def watch() -> None:
        inside.wait()
        seen["nobody"] = block(x)
        out[first_out].set()

    assert not at_once(thread("first", 2.0), thread("second", 3.0), watch)
    assert torch.equal(seen["first"], plain * 2) and torch.equal(seen["second"], plain * 3)
    assert torch.equal(seen["nobody"], plain), "a thread without gates finds the block as it is"
    assert "forward" not in vars(block) and torch.equal(block(x), plain)


def test_a_run_inside_an_evaluation_of_another() -> None:
    block, x, calls = torch.nn.Linear(2, 2), torch.ones(1, 2), []

    def gate(name: str) -> Any:
        return lambda original, a, k: (calls.append(name), original(*a, **k))[1]

    with installed([(block, gate("outer"))]):
        with installed([(block, gate("inner"))]):
            block(x)
        block(x)
    assert calls == ["inner", "outer"] and "forward" not in vars(block)


def make_run(network: Any) -> SamplingRun:
    technique = CacheDiT(CacheDiTSettings(residual_diff_threshold=0.9, max_warmup_steps=1))
    schedule = Schedule.from_sigmas([1 - i / 12 for i in range(13)])
    return SamplingRun(technique, schedule, "euler", network, (1e9, 0.0), Memory())


def evaluations(run: SamplingRun, model: Any, key: str, results: list[torch.Tensor]) -> None:
    network = model.diffusion_model
    generator = torch.Generator().manual_seed(len(key))
    x, context = torch.randn(1, 16, 8, 8, generator=generator), torch.randn(1, 6, 24)
    with torch.inference_mode():
        for step in range(12):
            sigma = torch.full((1,), 1 - step / 12)
            call = Call(
                execute=lambda s=sigma: network(x * s, s, context, y=torch.zeros(1, 16)),
                network=network,
                sigma=sigma,
                key=key,
                label=key,
                device=x.device,
            )
            results.append(run.evaluate(call))


def test_two_threads_in_one_run() -> None:
    """Whether they are called alike or not, both get finite results and nothing is left."""
    model = tm.bare_model("flux")
    tm.randomize(model.diffusion_model)
    clean = {name: set(vars(m)) for name, m in model.named_modules()}
    for keys in (("a", "bb"), ("a", "a")):
        run = make_run(model.diffusion_model)
        found: list[list[torch.Tensor]] = [[], []]
        work = [
            functools.partial(evaluations, run, model, key, results)
            for key, results in zip(keys, found, strict=True)
        ]
        errors = at_once(*work)
        report = run.close(True)
        assert not errors
        assert [len(results) for results in found] == [12, 12]
        assert all(result.isfinite().all() for results in found for result in results)
        assert len(report.evaluations) == 24
        assert not any("went wrong" in notice for notice in report.notices)
        assert {name: set(vars(m)) for name, m in model.named_modules()} == clean


def test_a_closed_run_takes_no_late_evaluation() -> None:
    model = tm.bare_model("flux")
    tm.randomize(model.diffusion_model)
    run = make_run(model.diffusion_model)
    results: list[torch.Tensor] = []
    evaluations(run, model, "a", results)
    report = run.close(True)
    evaluations(run, model, "a", results)
    assert len(results) == 24 and len(report.evaluations) == 12
    assert not run._branches._all()


@pytest.mark.parametrize("lever", ["none", "cache-dit"])
def test_two_threads_that_sample_one_model(lever: str) -> None:
    """The host itself may fail then; afterwards all is as before."""
    model = tm.make_model("flux")
    accelerated = model
    if lever == "cache-dit":
        accelerated = tm.attach(model, residual_diff_threshold=0.9, max_warmup_steps=1)
    plain, alone = tm.sample(model, "flux"), tm.sample(accelerated, "flux")
    errors = at_once(
        *(functools.partial(tm.sample, accelerated, "flux", seed=seed) for seed in (0, 1))
    )
    assert not any(isinstance(error, RecursionError) for error in errors)
    assert torch.equal(tm.sample(accelerated, "flux"), alone)
    assert torch.equal(tm.sample(model, "flux"), plain)
    assert not [m for m in model.model.modules() if "forward" in vars(m)]

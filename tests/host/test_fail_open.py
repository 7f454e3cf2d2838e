"""Whatever goes wrong in our own work, sampling goes on, and it is said once."""

from __future__ import annotations

import logging
import random
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import tiny_models as tm
import torch
from whole import first, whole

from comfyui_environment import ROOT

ENGINE = ROOT / "acceleration"
FAULTS = 23  # a model and a round
SPARED = (
    # What puts gates on and takes them off cannot fail and take them off.
    "gates.py",
    # Reads what is sent to the page and writes what people read, after all is done.
    "listener.py",
    "live_report.py",
    "report.py",
)
SPARED_NAMES = (
    "__",
    # Handlers that only call the block's own forward: what comes from here is the model's.
    "_run_",
    # The guards themselves, what the host calls, and what calls the model.
    *("safe", "evaluate", "_record", "give_up", "_failed", "execute", "load", "<lambda>"),
    *("outer_sample", "prepare_sampling", "predict_noise", "apply_model", "memory_required"),
    # What steps out of the options again.
    *("_take_out", "step_out", "_behind"),
)


class FaultError(Exception):
    """Raised at some call inside the engine."""


class Tracer:
    """Counts the calls of the engine's functions; raises at the n-th."""

    def __init__(self, fails_at: int = -1) -> None:
        self.calls = 0
        self.where = ""
        self._fails_at = fails_at

    def __call__(self, frame: FrameType, event: str, _: Any) -> None:
        path = Path(frame.f_code.co_filename)
        if event != "call" or not path.is_relative_to(ENGINE) or path.name in SPARED:
            return
        # Generators are entered again at every turn, also to clean up.
        if frame.f_code.co_flags & 0x20 or frame.f_code.co_name.startswith(SPARED_NAMES):
            return
        # Python swallows what is raised while an object goes.
        if any(f and f.f_code.co_name == "__del__" for f in (frame, frame.f_back)):
            return
        self.calls += 1
        if self.calls == self._fails_at:
            self.where = f"{path.name}: {frame.f_code.co_name}"
            raise FaultError(self.where)


def traced(tracer: Tracer, run: Callable[[], Any]) -> Any:
    sys.settrace(tracer)
    try:
        return run()
    finally:
        sys.settrace(None)


def performance(model: Any) -> Any:
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.performance import PerformanceSettings

    return host.attach_performance(model, PerformanceSettings(approximation="balanced"))


def tea_cache(model: Any) -> Any:
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
    from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

    settings = TeaCacheSettings(rel_l1_thresh=2.0, coefficients="raw", corrector=True)
    return host.attach(model, TeaCache(settings))


def cache_dit(model: Any) -> Any:
    return tm.attach(
        model, residual_diff_threshold=0.95, calibrator="taylorseer", max_warmup_steps=2
    )


def is_told(record: logging.LogRecord) -> bool:
    return "FaultError" in record.getMessage()


def attributes(model: Any) -> dict[str, set[str]]:
    return {name: set(vars(module)) for name, module in model.model.named_modules()}


@pytest.mark.parametrize("dice", [0, *whole([1, 2])])
@pytest.mark.parametrize(
    ("name", "lever"),
    first([("flux", performance), ("wan", tea_cache), ("flux", cache_dit)]),
)
def test_random_faults(
    name: str, lever: Callable[[Any], Any], dice: int, caplog: pytest.LogCaptureFixture
) -> None:
    model = tm.make_model(name)
    plain, clean = tm.sample(model, name, steps=9), attributes(model)
    accelerated = lever(model)
    sound = tm.sample(accelerated, name, steps=9)
    assert tm.report_of(accelerated).skipped

    def run() -> torch.Tensor:
        return tm.sample(accelerated, name, steps=9)

    counter = Tracer()
    assert torch.equal(traced(counter, run), sound)
    assert counter.calls > 300
    thrown = random.Random(f"{name} {dice}")
    for _ in range(FAULTS):
        tracer = Tracer(thrown.randint(1, counter.calls))
        caplog.clear()
        with caplog.at_level(logging.WARNING, "dit_acceleration"):
            picture = traced(tracer, run)
        where = tracer.where
        assert where, "it was raised"
        assert picture.isfinite().all(), where
        assert attributes(model) == clean, where
        said = [n for n in tm.report_of(accelerated).notices if "something went wrong" in n]
        assert len(said) <= 1, where
        assert said or any(is_told(record) for record in caplog.records), where
    assert torch.equal(tm.sample(model, name, steps=9), plain)
    assert torch.equal(run(), sound), "and the next run is as ever"


class ModelError(Exception):
    """The model's own."""


@pytest.mark.parametrize("error", [ModelError("its own"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", [1, 4, 7])
def test_the_models_own_errors_and_cancel_pass(error: BaseException, call: int) -> None:
    model = tm.make_model("flux")
    tm.sample(model, "flux", steps=1)
    clean = attributes(model)
    inner = model.model.diffusion_model.double_blocks[0].img_mlp
    seen = [0]

    def hook(*_: Any) -> None:
        seen[0] += 1
        if seen[0] == call:
            raise error

    handle = inner.register_forward_pre_hook(hook)
    accelerated = performance(model)
    with pytest.raises(type(error)):
        tm.sample(accelerated, "flux", steps=9)
    handle.remove()
    assert attributes(model) == clean
    assert tm.report_of(accelerated).outcome == "interrupted"
    assert not any("went wrong" in n for n in tm.report_of(accelerated).notices)

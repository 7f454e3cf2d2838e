"""Profile Sampling: nothing changes, nothing is left, and the trace holds what it should."""

from __future__ import annotations

import gzip
import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny_models as tm
import torch
from torch.autograd import DeviceType
from torch.autograd import profiler as autograd_profiler
from whole import first

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.errors import AccelerationError
from dit_acceleration_pack.acceleration.profiling.profiler import ProfileSettings
from dit_acceleration_pack.acceleration.profiling.trace import RANGE

CACHING: dict[str, Any] = {"residual_diff_threshold": 0.9, "calibrator": "taylorseer"}


@pytest.fixture(autouse=True)
def output(tmp_path: Path) -> Iterator[Path]:
    """The host's output folder for the length of a test."""
    import folder_paths

    before = folder_paths.get_output_directory()
    folder_paths.set_output_directory(str(tmp_path))
    yield tmp_path
    folder_paths.set_output_directory(before)


def profiled(model: Any, prefix: str = "profile/run", **settings: Any) -> Any:
    return host.profile(model, ProfileSettings(**settings), prefix)


def report_of(model: Any) -> Any:
    lever = host.lever_of(model, "dit_acceleration.profile")
    assert lever is not None and lever.last_report is not None
    return lever.last_report


def trace_of(report: Any, output: Path) -> list[dict[str, Any]]:
    """What the processor did; on CUDA the profiler repeats every range for the device."""
    with gzip.open(output / report.file, "rt", encoding="utf-8") as file:
        events: list[dict[str, Any]] = json.load(file)["traceEvents"]
    return [e for e in events if e.get("cat") != "gpu_user_annotation"]


def ranges(events: list[dict[str, Any]], kind: str = "") -> list[str]:
    """Names of our ranges in order of time, without the prefix."""
    found = sorted((e["ts"], e["name"]) for e in events if e["name"].startswith(RANGE + kind))
    return [name.removeprefix(RANGE) for _, name in found]


def attributes(model: Any) -> dict[str, Any]:
    """Names of what every module holds, and how many hooks it has."""
    return {
        name: (set(vars(m)), len(m._forward_hooks), len(m._forward_pre_hooks))
        for name, m in model.model.named_modules()
    }


def in_mid_run(model: Any, call: int, act: Callable[[], None]) -> Any:
    """Act in a block at the n-th evaluation."""
    block = model.model.diffusion_model.double_blocks[1]
    inner = next(m for m in block.modules() if isinstance(m, torch.nn.Linear))
    seen = [0]

    def hook(*_: Any) -> None:
        seen[0] += 1
        if seen[0] == call:
            act()

    return inner.register_forward_pre_hook(hook)


@pytest.mark.every_host
@pytest.mark.parametrize("name", ["flux", "wan", "qwen_image"])
def test_pictures_are_the_same_bit_for_bit_and_nothing_is_left(name: str) -> None:
    model = tm.make_model(name)
    plain = tm.sample(model, name, steps=6, cfg=3.0)
    before = attributes(model)
    measured = profiled(model, evaluations=2)
    for _ in range(2):
        assert torch.equal(tm.sample(measured, name, steps=6, cfg=3.0), plain)
        assert attributes(model) == before
        assert report_of(measured).traced == 2
    assert torch.equal(tm.sample(model, name, steps=6, cfg=3.0), plain)


@pytest.mark.every_host
def test_the_trace_is_json_with_the_ranges_and_operators_expected(output: Path) -> None:
    model = tm.make_model("flux")
    measured = profiled(model, evaluations=3)
    tm.sample(measured, "flux", steps=8)
    report = report_of(measured)
    assert report.file == "profile/run_00001_.json.gz"
    events = trace_of(report, output)
    assert ranges(events, "evaluation") == ["evaluation 2", "evaluation 3", "evaluation 4"]
    blocks = [f"block double_blocks.{i}" for i in range(2)]
    blocks += [f"block single_blocks.{i}" for i in range(3)]
    assert ranges(events, "block") == blocks * 3
    names = {e["name"] for e in events if e.get("cat") == "cpu_op"}
    assert {"aten::linear", "aten::layer_norm"} <= names
    found = report.as_dict()["breakdown"]
    assert found["evaluations"] == 3
    parts = {part["name"]: part["ms"] for part in found["parts"]}
    # Kernels on a device may overlap, and their times are rounded to a nanosecond each.
    rounding = 1e-6 if found["measured_on"] == "CPU" else 1e-2
    assert sum(parts.values()) == pytest.approx(found["total_ms"], rel=rounding)
    assert all(parts[name] > 0 for name in ("attention", "linear", "norm", "sampler", "gaps"))
    assert parts["caching decisions"] == 0
    saved = json.loads((output / "profile" / "run_00001_steps.json").read_text())
    assert saved["steps"] == report.as_dict()["steps"]
    json.dumps(report.as_dict(), allow_nan=False)
    assert "attention" in report.text() and "aten::" in report.text()


@pytest.mark.parametrize("caching_first", first([True, False]))
def test_with_caching_in_either_order(caching_first: bool, output: Path) -> None:
    model = tm.make_model("flux")
    cached = tm.attach(model, **CACHING)
    alone = tm.sample(cached, "flux", cfg=3.0)
    decisions = [e.skipped for e in tm.report_of(cached).evaluations]
    assert any(decisions)
    if caching_first:
        both = profiled(cached, evaluations=-1)
    else:
        both = tm.attach(profiled(model, evaluations=-1), **CACHING)
    assert torch.equal(tm.sample(both, "flux", cfg=3.0), alone)
    assert [e.skipped for e in tm.report_of(both).evaluations] == decisions
    report = report_of(both)
    events = trace_of(report, output)
    assert len(ranges(events, "decision")) == report.traced == len(decisions) - 1
    parts = report.as_dict()["breakdown"]["parts"]
    assert next(p["ms"] for p in parts if p["name"] == "caching decisions") > 0
    # On a skipped evaluation this block is called, too, but does nothing.
    working = [
        any(
            block["ts"] <= e["ts"] <= block["ts"] + block["dur"]
            for e in events
            if e.get("name") == "aten::addmm"
        )
        for block in sorted(events, key=lambda e: e.get("ts", 0))
        if block["name"] == f"{RANGE}block double_blocks.1"
    ]
    assert working == [not skipped for skipped in decisions[1:]]
    # Starting a profiler must not count as time of the model in caching's report.
    assert next(iter(both.wrappers["apply_model"])) == "dit_acceleration.profile"


def test_step_times_add_up_to_the_time_of_the_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a clock that moves where the test says: 0.3 s in the model, 0.2 s in the sampler."""
    now = [0.0]

    def let_pass(seconds: float) -> None:
        now[0] += seconds

    def guide(arguments: dict[str, Any]) -> Any:
        let_pass(0.2)
        return arguments["denoised"]

    # Of a GPU the time is its own, by events.
    model = tm.watch(tm.make_model("flux", device=tm.CPU), lambda *_: let_pass(0.3))
    model.model_options["sampler_post_cfg_function"] = [guide]
    measured = profiled(model, evaluations=2)
    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    for sampler, cfg in (("euler", 1.0), ("heun", 3.0)):
        began = now[0]
        tm.sample(measured, "flux", steps=10, sampler=sampler, cfg=cfg)
        report = report_of(measured)
        steps = sum(step.ms for step in report.steps) / 1000
        between = report.setup_seconds + report.profiler_seconds
        assert steps + between == pytest.approx(now[0] - began)
        assert [step.model_ms for step in report.steps] == pytest.approx([300] * len(report.steps))
        assert [step.ms for step in report.steps] == pytest.approx([500] * len(report.steps))
        assert all(step.memory_bytes > 0 for step in report.steps)
    assert len(report.steps) == 19 and {s.step for s in report.steps} == set(range(10))


@pytest.mark.every_host
@pytest.mark.parametrize("ending", first(["cancel", "exception"]))
def test_an_error_or_cancel_stops_the_profiler_and_keeps_what_it_saw(
    ending: str, output: Path
) -> None:
    import comfy.model_management

    kinds: dict[str, type[BaseException]] = {
        "exception": ZeroDivisionError,
        "cancel": comfy.model_management.InterruptProcessingException,
    }
    model = tm.make_model("flux")
    plain = tm.sample(model, "flux")
    before = attributes(model)
    measured = profiled(model, evaluations=-1)

    def act() -> None:
        raise kinds[ending]

    hook = in_mid_run(model, 4, act)
    with pytest.raises(kinds[ending]):
        tm.sample(measured, "flux")
    hook.remove()
    assert not autograd_profiler._is_profiler_enabled
    assert attributes(model) == before
    report = report_of(measured)
    assert report.outcome == "interrupted" and len(report.steps) == 4
    assert ranges(trace_of(report, output), "evaluation")[:2] == ["evaluation 2", "evaluation 3"]
    assert torch.equal(tm.sample(measured, "flux"), plain)
    assert report_of(measured).outcome == "finished"


def test_a_profiler_that_already_runs_keeps_running_and_gets_the_ranges(output: Path) -> None:
    model = tm.make_model("flux")
    measured = profiled(model, evaluations=2)
    with torch.profiler.profile(acc_events=True) as outer:
        tm.sample(measured, "flux", steps=5)
    report = report_of(measured)
    assert report.file == "" and not list(output.rglob("*.gz"))
    assert any("already running" in notice for notice in report.notices)
    names = [
        e.name
        for e in outer.events()
        if e.name.startswith(RANGE + "evaluation") and e.device_type == DeviceType.CPU
    ]
    assert sorted(names) == [f"{RANGE}evaluation 2", f"{RANGE}evaluation 3"]
    assert len(report.steps) == 5


def test_off_is_nothing_at_all() -> None:
    model = tm.make_model("flux")
    assert profiled(model, evaluations=0) is model
    off = profiled(profiled(model), evaluations=0)
    assert host.levers_of(off) == {} == host.levers_of(model)
    wrappers = off.wrappers if hasattr(off, "wrappers") else {}
    assert not [key for kind in wrappers.values() for key in kind if "dit_accel" in str(key)]


def test_files_are_numbered_and_never_overwritten(output: Path) -> None:
    measured = profiled(tm.make_model("flux"), evaluations=1, prefix="a:b")
    for number in (1, 2):
        tm.sample(measured, "flux", steps=3)
        assert report_of(measured).file == f"a_b_0000{number}_.json.gz"
    assert len(list(output.glob("*.json.gz"))) == 2


@pytest.mark.parametrize("prefix", ["", "../out", "/tmp/x", "a/../../b", "folder/"])
def test_names_outside_the_output_folder_are_refused(prefix: str) -> None:
    with pytest.raises(AccelerationError, match="filename_prefix"):
        profiled(tm.make_model("flux"), prefix=prefix)


def test_settings_that_make_no_sense_get_a_sentence() -> None:
    with pytest.raises(AccelerationError, match="evaluations is -2"):
        ProfileSettings(evaluations=-2)
    with pytest.raises(AccelerationError, match="mode is 'x'"):
        ProfileSettings(mode="x")
    with pytest.raises(AccelerationError, match="needs a MODEL"):
        profiled("no model")


def test_what_could_not_be_done_is_said(output: Path) -> None:
    model = tm.make_model("flux")
    measured = profiled(tm.make_model("flux", device=tm.CPU), mode="nvtx")
    tm.sample(measured, "flux", steps=4)
    assert any("NVTX ranges need a CUDA device" in n for n in report_of(measured).notices)
    measured = profiled(model, evaluations=9)
    tm.sample(measured, "flux", steps=4)
    assert any("the run has 3 to trace" in n for n in report_of(measured).notices)
    tm.sample(measured, "flux", steps=1)
    assert any("first is never traced" in n for n in report_of(measured).notices)
    plain = tm.sample(model, "flux", steps=4)
    folder = output / "profile"
    for file in folder.iterdir():
        file.unlink()
    folder.rmdir()
    folder.write_text("in the way")
    assert torch.equal(tm.sample(measured, "flux", steps=4), plain)
    assert any("could not be finished" in n for n in report_of(measured).notices)
    assert not autograd_profiler._is_profiler_enabled


@pytest.mark.gpu
def test_nvtx_ranges_take_no_profiler_and_write_only_the_steps(output: Path) -> None:
    model = tm.make_model("flux")
    plain = tm.sample(model, "flux", steps=4)
    measured = profiled(model, mode="nvtx", evaluations=2)
    assert torch.equal(tm.sample(measured, "flux", steps=4), plain)
    report = report_of(measured)
    assert report.traced == 2 and report.notices == []
    assert report.file == "profile/run_00001_steps.json"
    assert not list(output.rglob("*.gz"))
    assert all(step.peak_bytes >= step.memory_bytes > 0 for step in report.steps)


@pytest.mark.whole
def test_compiled_models_are_profiled_without_ranges_inside() -> None:
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    model = tm.make_model("flux")
    compiled = model.clone()
    set_torch_compile_wrapper(compiled, backend="eager")
    plain = tm.sample(compiled, "flux", steps=4)
    for measured in (profiled(compiled, evaluations=2), _compiled(profiled(model, evaluations=2))):
        assert torch.equal(tm.sample(measured, "flux", steps=4), plain)
        report = report_of(measured)
        assert report.traced == 2
        assert any("compiled" in notice for notice in report.notices)


def _compiled(model: Any) -> Any:
    from comfy_api.torch_helpers import set_torch_compile_wrapper

    clone = model.clone()
    set_torch_compile_wrapper(clone, backend="eager")
    return clone

"""Memory of a run on the real host: what is asked for, what is held, and what happens without."""

from __future__ import annotations

import gc
import importlib.util
import sys
from collections.abc import Callable
from typing import Any

import pytest
import tiny_models as tm
import torch
from whole import first, whole

from comfyui_environment import ROOT

pytestmark = pytest.mark.every_host

SETTINGS: dict[str, Any] = {"residual_diff_threshold": 0.9, "max_warmup_steps": 2}

# One image stream of the tiny Flux: 16 tokens of width 32 in float32.
ONE = 16 * 32 * 4
STEPS = 14
PACKED = {"full": ONE, "bf16": ONE // 2, "fp8": ONE // 4 + 16 * 4}


@pytest.mark.parametrize("batch", [1, 4])
@pytest.mark.parametrize("cfg", [1.0, 3.0])
@pytest.mark.parametrize("mode", ["gpu", "cpu", "gpu_bf16", "cpu_fp8"])
def test_the_report_shows_the_bytes_that_are_held(mode: str, cfg: float, batch: int) -> None:
    """By hand, for trajectory 1: two signals and two residuals, and the branch's own signals."""
    model = tm.attach(
        tm.make_model("flux"), calibrator="trajectory", residual_device=mode, **SETTINGS
    )
    tm.sample(model, "flux", cfg=cfg, batch=batch)
    report = tm.report_of(model)
    samples = batch * (1 if cfg == 1.0 else 2)
    storage = mode.partition("_")[2] or "full"
    kept = samples * 4 * PACKED[storage]
    on_cpu = model.load_device.type == "cpu"
    place = "cpu" if on_cpu or mode.startswith("cpu") else "gpu"
    # As they are and where they were made, the branch's signal and the newest one of the forecast
    # are the same tensor.
    stays = storage == "full" and (on_cpu or place == "gpu")
    signal = 0 if stays else samples * ONE
    # What the next evaluation is compared with, where that is not the computed one's.
    signal += samples * ONE if report.evaluations[-1].skipped else 0
    assert report.skipped > 0
    assert report.residual_peak_bytes == kept + signal
    assert report.residual_placement == (place if storage == "full" else f"{place} ({storage})")
    assert report.residual_placement in report.text()


@pytest.mark.parametrize("calibrator", ["none", "taylorseer", "trajectory", "blend"])
def test_cpu_storage_changes_nothing_and_compact_storage_little(calibrator: str) -> None:
    model = tm.make_model("flux")
    pictures = {}
    for mode in ("gpu", "cpu", "gpu_bf16", "gpu_fp8"):
        accelerated = tm.attach(model, calibrator=calibrator, residual_device=mode, **SETTINGS)
        pictures[mode] = tm.sample(accelerated, "flux")
        assert tm.report_of(accelerated).skipped > 0
    assert torch.equal(pictures["cpu"], pictures["gpu"])
    bf16, fp8 = (tm.psnr(pictures["gpu"], pictures[m]) for m in ("gpu_bf16", "gpu_fp8"))
    assert fp8 > 25
    assert bf16 > fp8


def with_room(monkeypatch: pytest.MonkeyPatch, size: int) -> list[int]:
    """Leave so many bytes to residuals; returns what the model's device held after every put."""
    from dit_acceleration_pack.acceleration.host.memory import HostMemory
    from dit_acceleration_pack.acceleration.store.residual_store import ResidualStore

    held: list[int] = []
    put = ResidualStore.put

    def watched(self: Any, tensor: torch.Tensor, *rest: Any) -> Any:
        kept = put(self, tensor, *rest)
        held.append(self.held(tensor.device))
        return kept

    monkeypatch.setattr(HostMemory, "room", lambda *_: size)
    monkeypatch.setattr(ResidualStore, "put", watched)
    return held


@pytest.mark.parametrize(("units", "storage"), [(50, ""), (30, " (bf16)"), (14, " (fp8)")])
def test_auto_respects_its_budget_with_batch_4(
    units: int, storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both prompts of four pictures in one batch: 8 images, of 6 tensors each as announced.

    fp8 takes 9 / 32 of float32 at width 32.
    """
    budget = units * ONE
    held = with_room(monkeypatch, budget)
    model = tm.attach(tm.make_model("flux"), calibrator="trajectory", **SETTINGS)
    tm.sample(model, "flux", cfg=3.0, batch=4)
    report = tm.report_of(model)
    assert report.skipped > 0
    place = "cpu" if model.load_device.type == "cpu" else "gpu"
    assert report.residual_placement == place + storage
    assert held and 0 < max(held) <= budget


def test_with_no_room_at_all_the_run_is_uncached_and_says_so(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tm.make_model("flux")
    plain = tm.sample(model, "flux")
    with_room(monkeypatch, ONE // 8)
    accelerated = tm.attach(model, **SETTINGS)
    assert torch.equal(tm.sample(accelerated, "flux"), plain)
    report = tm.report_of(accelerated)
    assert report.skipped == 0 and report.outcome == "finished"
    assert any("does not fit into the memory" in notice for notice in report.notices)
    assert "does not fit" in report.sentence()


def fails_once(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> list[int]:
    """Make a method run out of memory at its n-th call; returns the number of its calls."""
    calls = [0]
    original = getattr(owner, name)

    def method(*args: Any, **kwargs: Any) -> Any:
        calls[0] += 1
        if calls[0] == call:
            raise torch.OutOfMemoryError("simulated")
        return original(*args, **kwargs)

    if isinstance(owner, torch.nn.Module):
        # Not setattr: before pytest 9 its undoing leaves a bound method among the attributes.
        monkeypatch.setitem(vars(owner), name, method)
    else:
        monkeypatch.setattr(owner, name, staticmethod(method) if name == "get" else method)
    return calls


def in_put(monkeypatch: pytest.MonkeyPatch, model: Any) -> list[int]:
    """While storing a residual, after an evaluation."""
    from dit_acceleration_pack.acceleration.store.residual_store import ResidualStore

    return fails_once(monkeypatch, ResidualStore, "put", 3)


def in_get(monkeypatch: pytest.MonkeyPatch, model: Any) -> list[int]:
    """While forecasting, in the middle of an evaluation with gates installed."""
    from dit_acceleration_pack.acceleration.store.residual_store import ResidualStore

    return fails_once(monkeypatch, ResidualStore, "get", 8)


def in_a_block(monkeypatch: pytest.MonkeyPatch, model: Any) -> list[int]:
    """In a block of the model, while residuals take its memory."""
    block = model.model.diffusion_model.double_blocks[1]
    inner = next(m for m in block.modules() if isinstance(m, torch.nn.Linear))
    return fails_once(monkeypatch, inner, "forward", 3)


@pytest.mark.parametrize("calibrator", ["trajectory", *whole(["none", "taylorseer"])])
@pytest.mark.parametrize("where", first([in_a_block, in_put, in_get]))
def test_out_of_memory_drops_the_cache_and_the_run_goes_on(
    where: Callable[..., list[int]], calibrator: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dit_acceleration_pack.acceleration.store.residual_store import Kept

    model = tm.make_model("flux")
    tm.sample(model, "flux")  # the host notes things on its modules when it loads them
    attributes = {name: set(vars(module)) for name, module in model.model.named_modules()}
    accelerated = tm.attach(model, calibrator=calibrator, **SETTINGS)

    alive: list[int] = []

    def note(*_: Any) -> None:
        alive.append(sum(type(o) is Kept for o in gc.get_objects()))

    calls = where(monkeypatch, model)
    watched = tm.watch(accelerated, note)
    gc.collect()
    gc.disable()  # what is dropped must go at once, not when the collector comes by
    try:
        result = tm.sample(watched, "flux", steps=STEPS)
    finally:
        gc.enable()
    report = tm.report_of(watched)
    monkeypatch.undo()
    assert calls[0] >= 3, "the error never came"
    assert report.outcome == "finished" and len(report.evaluations) == STEPS
    assert any("memory ran out" in notice for notice in report.notices)
    assert "memory ran out" in report.text()
    failed = next(i for i, e in enumerate(report.evaluations) if e.reason == "not accelerated")
    assert all(not e.skipped for e in report.evaluations[failed - 1 :])
    assert all(e.reason == "not accelerated" for e in report.evaluations[failed:])
    again = len(alive) - STEPS
    assert again == (report.evaluations[failed - 1].reason == "out of memory")
    assert max(alive) > 0 and not any(alive[-(STEPS - failed) - again :])
    assert torch.isfinite(result).all()
    assert {n: set(vars(m)) for n, m in model.model.named_modules()} == attributes


@pytest.mark.parametrize("where", [in_put, in_get])
def test_the_evaluation_at_hand_is_right(
    where: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a mask nothing but the evaluations before the error decide, so they can be repeated."""
    from dit_acceleration_pack.acceleration.sampling.run import SamplingRun

    model = tm.make_model("flux")
    settings = {**SETTINGS, "calibrator": "trajectory"}
    accelerated = tm.attach(model, **settings)
    where(monkeypatch, model)
    result = tm.sample(accelerated, "flux", steps=STEPS)
    report = tm.report_of(accelerated)
    skipped = [e.skipped for e in report.evaluations]
    monkeypatch.undo()

    # The same again, where a switch of the run takes the place of the error.
    last = max((i for i, s in enumerate(skipped) if s), default=-1)
    evaluate = SamplingRun.evaluate

    def until_then(self: Any, call: Any) -> Any:
        if len(self.report.evaluations) == last + 1:
            self.run_plainly("switched off by the test")
        return evaluate(self, call)

    monkeypatch.setattr(SamplingRun, "evaluate", until_then)
    again = tm.attach(model, **settings)
    expected = tm.sample(again, "flux", steps=STEPS)
    assert [e.skipped for e in tm.report_of(again).evaluations] == skipped
    assert torch.equal(result, expected)


def test_the_models_own_lack_of_memory_is_the_hosts_affair(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = tm.make_model("flux")
    accelerated = tm.attach(model, **SETTINGS)
    tm.sample(accelerated, "flux")
    calls = fails_once(monkeypatch, model.model.diffusion_model.img_in, "forward", 1)
    with pytest.raises(torch.OutOfMemoryError):
        tm.sample(accelerated, "flux")
    assert calls[0] == 1, "nothing of ours was held, so nothing may be tried again"
    assert tm.report_of(accelerated).outcome == "interrupted"


def loads(monkeypatch: pytest.MonkeyPatch) -> list[tuple[float, float]]:
    """The memory that the host keeps free for sampling, at every loading."""
    import comfy.model_management

    seen: list[tuple[float, float]] = []
    original = comfy.model_management.load_models_gpu

    def load(*args: Any, **kwargs: Any) -> Any:
        seen.append((kwargs["memory_required"], kwargs["minimum_memory_required"]))
        return original(*args, **kwargs)

    monkeypatch.setattr(comfy.model_management, "load_models_gpu", load)
    return seen


@pytest.mark.parametrize(
    ("mode", "total", "extra"),
    [
        # Trajectory 1 says that it keeps three tensors, the policy one more, in two branches; three
        # are on the device for a moment.
        ("gpu", 0, 8 * ONE + 3 * ONE),
        ("gpu_bf16", 0, 4 * ONE + 3 * ONE),
        ("gpu_fp8", 0, 2 * ONE + 3 * ONE),
        ("cpu", 2**60, 3 * ONE),
        ("auto", 2**60, 8 * ONE + 3 * ONE),
        ("auto", 0, 3 * ONE),
    ],
)
def test_the_host_is_told_what_to_keep_free_and_forgets_it_again(
    mode: str, total: int, extra: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.model_management

    model = tm.make_model("flux")
    seen = loads(monkeypatch)
    monkeypatch.setattr(comfy.model_management, "get_total_memory", lambda *_: total)
    tm.sample(model, "flux", cfg=3.0)
    accelerated = tm.attach(model, calibrator="trajectory", residual_device=mode, **SETTINGS)
    tm.sample(accelerated, "flux", cfg=3.0)
    tm.sample(model, "flux", cfg=3.0)
    plain, ours, after = seen
    assert after == plain
    assert ours[0] - plain[0] == pytest.approx(extra, abs=1e-6 * plain[0])
    assert ours[1] - plain[1] == pytest.approx(extra, abs=1e-6 * plain[1])
    assert "memory_required" not in vars(model.model)


def test_an_error_while_loading_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    import comfy.model_management

    def load(*_: Any, **__: Any) -> None:
        raise torch.OutOfMemoryError("simulated")

    model = tm.make_model("flux")
    monkeypatch.setattr(comfy.model_management, "load_models_gpu", load)
    with pytest.raises(torch.OutOfMemoryError):
        tm.sample(tm.attach(model, **SETTINGS), "flux")
    assert "memory_required" not in vars(model.model)


KNOWN_BEFORE = [
    "chroma",
    "cosmos_predict2",
    "flux",
    "flux2",
    "hidream",
    "hunyuan_video",
    "ltxv",
    "mochi",
    "pixart_sigma",
    "qwen_image",
    "sd3",
    "wan",
    "wan22_5b",
    "kandinsky5",
    "ernie_image",
]


@pytest.mark.parametrize("name", KNOWN_BEFORE)
def test_the_size_of_a_hidden_state_is_known_before_the_run(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    import comfy.supported_models

    from dit_acceleration_pack.acceleration.host.memory import HostMemory
    from dit_acceleration_pack.acceleration.store.residual_store import ResidualStore

    if not hasattr(comfy.supported_models, tm.TINY[name].config):
        pytest.skip(f"this host has no {name}")
    expected: list[int] = []
    sizes: list[int] = []
    prepare, put = HostMemory.prepare, ResidualStore.put

    def asked(self: Any, mode: str, needed: int, one: int, load: Any) -> Any:
        expected.append(one)
        return prepare(self, mode, needed, one, load)

    def stored(self: Any, tensor: torch.Tensor, *rest: Any) -> Any:
        sizes.append(tensor.numel() * tensor.element_size())
        return put(self, tensor, *rest)

    monkeypatch.setattr(HostMemory, "prepare", asked)
    monkeypatch.setattr(ResidualStore, "put", stored)
    tm.sample(tm.attach(tm.make_model(name), **SETTINGS), name, steps=3)
    # Text that shares the stream is not counted.
    assert 0.75 * sizes[0] <= expected[0] <= sizes[0]


DEMO = ROOT / "workflows" / "demo"


def demo_shapes() -> Any:
    """The demo's prompts and its text encoder, loaded from the file."""
    spec = importlib.util.spec_from_file_location("demo_shapes", DEMO / "shapes.py")
    assert spec is not None and spec.loader is not None
    module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def demo_latent(model: Any, prompt: str) -> torch.Tensor:
    """One picture of the demo model, 28 steps at cfg 3."""
    import comfy.sample

    shapes = demo_shapes()

    def conditioned(text: str) -> list[Any]:
        tokens, pooled = shapes.text_embedding(text)
        return [[tokens, {"pooled_output": pooled}]]

    empty = torch.zeros(1, shapes.LATENT_CHANNELS, shapes.LATENT_SIZE, shapes.LATENT_SIZE)
    noise = comfy.sample.prepare_noise(empty, 5)
    prompts = conditioned(prompt), conditioned(shapes.UNCONDITIONAL)
    options = {"disable_pbar": True, "seed": 5}
    with torch.inference_mode():
        return comfy.sample.sample(
            model, noise, 28, 3.0, "euler", "simple", *prompts, empty, **options
        )


@pytest.mark.whole
@pytest.mark.slow
@pytest.mark.parametrize("calibrator", ["blend", *whole(["none", "taylorseer", "trajectory"])])
def test_on_the_demo_model_every_storage_stays_near_gpu_storage(calibrator: str) -> None:
    import comfy.sd

    model = comfy.sd.load_diffusion_model(str(DEMO / "models/dit_accel_demo_flux.safetensors"))
    prompt = demo_shapes().PROMPTS[1]
    latents = {}
    for mode in ("gpu", "cpu", "gpu_bf16", "cpu_fp8"):
        accelerated = tm.attach(model, calibrator=calibrator, residual_device=mode)
        latents[mode] = demo_latent(accelerated, prompt)
        assert tm.report_of(accelerated).skipped > 10
    for mode in ("cpu", "gpu_bf16", "cpu_fp8"):
        assert tm.psnr(latents["gpu"], latents[mode]) >= 45, mode

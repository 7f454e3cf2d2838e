"""Performance Mode on a MODEL of the real host."""

from __future__ import annotations

from typing import Any

import pytest
import tiny_models as tm
import torch

pytestmark = pytest.mark.every_host


def performance(model: Any, **values: Any) -> Any:
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.performance import PerformanceSettings

    return host.attach_performance(model, PerformanceSettings(**values))


def reports(model: Any) -> dict[str, Any]:
    from dit_acceleration_pack.acceleration import host

    return {key: lever.last_report for key, lever in host.levers_of(model).items()}


def mode_report(model: Any) -> Any:
    return reports(model)["dit_acceleration.performance"]


def test_off_changes_nothing_and_says_so() -> None:
    model = tm.make_model("flux")
    plain = tm.sample(model, "flux")
    off = performance(model, approximation="off")
    assert torch.equal(tm.sample(off, "flux"), plain)
    assert "off, every evaluation is computed" in mode_report(off).sentence()
    on_cpu = model.load_device.type == "cpu"
    assert ("CPU" if on_cpu else "everything stays") in mode_report(off).decisions["weights"]
    assert torch.equal(tm.sample(model, "flux"), plain), "no trace"


@pytest.mark.parametrize("name", ["flux", "wan", "qwen_image"])
def test_target_keeps_its_number_and_repeats(name: str) -> None:
    from dit_acceleration_pack.acceleration.policies.cost import cost_of

    model = tm.make_model(name)
    plain = tm.sample(model, name, steps=20)
    quick = performance(model, approximation="target", target_speedup=1.6)
    first = tm.sample(quick, name, steps=20)
    report = tm.report_of(quick)
    network = model.model.diffusion_model
    from dit_acceleration_pack.acceleration import host

    cost = cost_of(host.structure_of(model), network, model.load_device.type, 1)
    wanted = cost.share(1.6) * 20
    for branch in report.branches():
        assert abs(branch["computed"] - max(wanted, 2)) <= 1
    assert report.skipped and not torch.equal(first, plain) and first.isfinite().all()
    # Fewer than two evaluations a branch are never planned, however cheap a skipped one is.
    assert report.as_dict()["promised"] == pytest.approx(min(1.6, cost.speedup(0.1)))
    assert torch.equal(tm.sample(quick, name, steps=20), first), "run 2 = run 1"
    assert torch.equal(tm.sample(model, name, steps=20), plain), "no trace"


def test_a_few_step_model_is_left_alone() -> None:
    model = tm.make_model("flux")
    plain = tm.sample(model, "flux", steps=4)
    quick = performance(model, approximation="ultra")
    assert torch.equal(tm.sample(quick, "flux", steps=4), plain)
    assert "4 steps are too few" in tm.report_of(quick).sentence()


def test_settings_of_other_nodes_win() -> None:
    model = tm.attach(tm.make_model("flux"), residual_diff_threshold=0.3)
    both = performance(model, approximation="ultra", mode="speed")
    tm.sample(both, "flux")
    assert tm.report_of(both).technique == "Cache-DiT"
    assert "set by Cache-DiT, kept" in mode_report(both).sentence()


def test_a_second_performance_mode_wins() -> None:
    model = performance(tm.make_model("flux"), approximation="ultra")
    calmer = performance(model, approximation="quality")
    tm.sample(calmer, "flux", steps=12)
    assert tm.report_of(calmer).settings["approximation"] == "quality"
    off = performance(calmer, approximation="off")
    plain = tm.sample(tm.make_model("flux"), "flux", steps=12)
    assert torch.equal(tm.sample(off, "flux", steps=12), plain)


def attention_of(model: Any) -> Any:
    from dit_acceleration_pack.acceleration import host

    return host.lever_of(model, "dit_acceleration.attention")


@pytest.mark.parametrize("mode", ["speed", "auto"])
def test_a_second_performance_mode_chooses_the_kernel_anew(mode: str) -> None:
    first = performance(tm.make_model("flux"), mode="speed", approximation="off")
    second = performance(first, mode=mode, approximation="off")
    tm.sample(second, "flux")
    said = mode_report(second).decisions.get("attention", "")
    assert "kept" not in said and ("fastest exact kernel" in said) == (mode == "speed")
    mine = attention_of(second)
    assert (mine is None) == (mode == "auto")
    assert mine is not attention_of(first) is not None, "the first one keeps its own"
    if mine is not None:
        assert not mine.last_report.notices, "it replaced nobody's choice"
    third = performance(second, mode="auto", approximation="off")
    assert attention_of(third) is None


@pytest.mark.parametrize("mode", ["speed", "auto"])
def test_attention_backend_between_two_performance_modes_is_kept(mode: str) -> None:
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.attention import AttentionSettings

    first = performance(tm.make_model("flux"), mode="speed", approximation="off")
    chosen = host.attach_attention(first, AttentionSettings(backend="sdpa"))
    second = performance(chosen, mode=mode, approximation="off")
    third = performance(second, mode=mode, approximation="off")
    tm.sample(third, "flux")
    assert mode_report(third).decisions["attention"] == "set by Attention Backend, kept"
    assert attention_of(third) is attention_of(chosen)


def test_a_caching_node_behind_wins_and_says_so() -> None:
    model = tm.attach(performance(tm.make_model("flux"), approximation="ultra"))
    tm.sample(model, "flux", steps=12)
    report = tm.report_of(model)
    assert report.technique == "Cache-DiT"
    assert any("replaced Performance Mode" in notice for notice in report.notices)


def test_speed_takes_exact_kernels_and_compiles_no_short_run() -> None:
    model = tm.make_model("flux")
    plain = tm.sample(model, "flux")
    quick = performance(model, mode="speed", approximation="off")
    picture = tm.sample(quick, "flux")
    said = mode_report(quick).decisions
    why = "no working compiler" if model.load_device.type == "cpu" else "too short"
    assert "exact" in said["attention"] and why in said["compile"]
    assert torch.allclose(picture, plain, rtol=1e-3, atol=1e-4)
    assert "dit_acceleration.attention" in reports(quick)


def test_manual_touches_nothing() -> None:
    model = performance(tm.make_model("flux"), mode="manual", approximation="off")
    tm.sample(model, "flux")
    assert mode_report(model).decisions["weights"] == "manual, left to ComfyUI"


@pytest.mark.parametrize(
    ("mode", "free_gb", "asked"),
    [
        ("auto", 80, {"force_full_load": True}),
        ("speed", 80, {"force_full_load": True}),
        ("memory", 80, {"force_offload": True}),
        ("auto", 0, {}),
        ("speed", 0, {}),
        ("manual", 80, {}),
    ],
)
def test_the_host_is_asked_through_its_own_arguments(
    mode: str, free_gb: int, asked: dict[str, bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stand-in for the memory query; the loading itself is the host's."""
    import comfy.model_management

    from dit_acceleration_pack.acceleration import host

    model = performance(tm.make_model("flux"), mode=mode, approximation="off")
    lever = host.lever_of(model, "dit_acceleration.performance")
    seen: dict[str, Any] = {}

    class OnGpu:
        load_device = torch.device("cuda:0")
        model = tm.make_model("flux").model

        def model_size(self) -> int:
            return 2**30

        def loaded_size(self) -> int:
            return 0

        def is_clone(self, other: Any) -> bool:
            return False

    monkeypatch.setattr(comfy.model_management, "get_free_memory", lambda device: free_gb * 2**30)
    lever.prepare_sampling(lambda *args, **kwargs: seen.update(kwargs), OnGpu(), None, {})
    assert seen == asked


@pytest.mark.parametrize("mode", ["auto", "speed", "memory"])
def test_paged_weights_are_left_to_the_host_and_the_report_says_so(mode: str) -> None:
    """A stand-in for the host's dynamic patcher, whose loading takes no wishes."""
    from dit_acceleration_pack.acceleration import host

    model = performance(tm.make_model("flux"), mode=mode, approximation="off")
    lever = host.lever_of(model, "dit_acceleration.performance")
    asked: list[dict[str, Any]] = []

    class Paged:
        load_device = torch.device("cuda:0")

        def is_dynamic(self) -> bool:
            return True

    lever.prepare_sampling(lambda *args, **kwargs: asked.append(kwargs), Paged(), None, {})
    assert asked == [{}]
    assert "dynamic VRAM" in lever._decisions(model, "")["weights"]


def test_locked_by_the_operator(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIT_ACCEL_LOCK_LOSSY", "1")
    model = tm.make_model("flux")
    plain = tm.sample(model, "flux", steps=12)
    locked = performance(model, approximation="ultra")
    assert torch.equal(tm.sample(locked, "flux", steps=12), plain)
    said = mode_report(locked).sentence()
    assert "approximation: off, the operator of this server has switched off" in said


def test_the_report_says_once_where_its_settings_come_from(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from dit_acceleration_pack.nodes.performance_mode import PerformanceMode
    from dit_acceleration_pack.nodes.report import AccelerationReport

    monkeypatch.setenv("DIT_ACCEL_PERFORMANCE_TARGET_SPEEDUP", "1.5")
    model = PerformanceMode.execute(tm.make_model("flux"), approximation="target").result[0]
    tm.sample(model, "flux", steps=12)
    said = (
        "Settings: approximation target (node), target_speedup 1.5 (environment variable "
        "DIT_ACCEL_PERFORMANCE_TARGET_SPEEDUP); the rest as by default."
    )
    assert said in mode_report(model).text().splitlines()
    text = AccelerationReport.execute(model=model, after=0).result[1]
    assert text.count("Settings:") == 1 and text.count("TARGET_SPEEDUP") == 1
    assert mode_report(model).as_dict()["origins"]["mode"] == "default"
    monkeypatch.delenv("DIT_ACCEL_PERFORMANCE_TARGET_SPEEDUP")
    plain = PerformanceMode.execute(tm.make_model("flux"), approximation="quality").result[0]
    tm.sample(plain, "flux", steps=12)
    assert "Settings:" not in mode_report(plain).text()


@pytest.mark.whole
def test_long_videos_are_compiled_in_speed_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for the compiler's backend, which runs the graphs as they are."""
    from comfy_api import torch_helpers

    from dit_acceleration_pack.acceleration.performance import compiling

    compiled: list[list[str]] = []
    original = torch_helpers.set_torch_compile_wrapper

    def eager(model: Any, backend: str, keys: list[str]) -> None:
        compiled.append(keys)
        original(model, backend="eager", keys=keys)

    monkeypatch.setattr(torch_helpers, "set_torch_compile_wrapper", eager)
    monkeypatch.setattr(compiling, "has_compiler", lambda device: True)
    monkeypatch.setattr(compiling, "LONG_VIDEO_STEPS", 10)
    model = tm.make_model("wan")
    plain = tm.sample(model, "wan", steps=10)
    quick = performance(model, mode="speed", approximation="target", target_speedup=1.0)
    picture = tm.sample(quick, "wan", steps=10)
    assert torch.allclose(picture, plain, rtol=1e-3, atol=1e-4)
    assert mode_report(quick).decisions["compile"].startswith("blocks are compiled")
    assert compiled == [[f"diffusion_model.blocks.{i}" for i in range(len(compiled[0]))]]
    assert len(compiled[0]) == len(model.model.diffusion_model.blocks)
    tm.sample(quick, "wan", steps=10)
    assert len(compiled) == 1, "made once"
    short = tm.sample(quick, "wan", steps=4)
    assert short.isfinite().all()
    assert "too short" in mode_report(quick).decisions["compile"]
    assert torch.equal(tm.sample(model, "wan", steps=10), plain), "no trace"

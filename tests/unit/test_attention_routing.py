"""Limits, choices, counts and the race, without any package and without the host."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import attention_calls as calls
import pytest
import torch

from dit_acceleration_pack.acceleration.attention import (
    BACKENDS,
    CHOICES,
    FORMER,
    AttentionRun,
    AttentionSettings,
    available_backends,
    class_of,
    describe_choices,
    probe,
    race,
)
from dit_acceleration_pack.acceleration.attention.backend import Backend, is_installed
from dit_acceleration_pack.acceleration.attention.call import Arguments, shape_of
from dit_acceleration_pack.acceleration.attention.device import DeviceFacts
from dit_acceleration_pack.acceleration.attention.limits import Limits
from dit_acceleration_pack.acceleration.errors import AccelerationError

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "benchmarks" / "results" / "attention.json"
CPU = torch.device("cpu")


def host_zeros(q: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
    """A host's function whose result is known again."""
    return torch.zeros_like(q)


def test_values_of_the_list_stay() -> None:
    promised = "auto default flash sage sage3 xformers sdpa sdpa_flash sdpa_cudnn sdpa_efficient"
    assert set(promised.split()) | {"sdpa_math"} <= set(CHOICES)
    assert CHOICES[:2] == ("auto", "default")


def test_choices_of_older_versions_still_mean_something() -> None:
    assert FORMER == {
        "sage_fp16_triton": "sage_fp16",
        "sage_fp8": "sage",
        "sage_fp8_fast": "sage",
        "sage_fp8_hopper": "sage",
    }
    for former, today in FORMER.items():
        assert former not in CHOICES and AttentionSettings(backend=former).kernel == today
        # What the operator's lock goes by.
        assert class_of(former) == "quality-tradeoff"


def test_what_no_gpu_has_measured_is_experimental() -> None:
    """Plain mathematics is not timed (``races``), so the results do not tell."""
    measured = {row["ran"] for row in json.loads(RESULTS.read_text(encoding="utf-8"))["rows"]}
    timed = {name for name, backend in BACKENDS.items() if backend.races}
    assert {name for name, b in BACKENDS.items() if b.experimental} == timed - measured
    (line,) = [line for line in describe_choices().splitlines() if line.startswith("Not yet")]
    assert line.startswith("Not yet measured on a GPU by this pack: ")
    told = set(line.partition(": ")[2].rstrip(".").split(", "))
    assert told == timed - measured != set()
    for language in ("zh", "ja"):
        texts = json.loads((ROOT / "locales" / language / "nodeDefs.json").read_text("utf-8"))
        tooltip = texts["AccelAttentionBackend"]["inputs"]["backend"]["tooltip"]
        assert all(name in tooltip for name in told), language


def test_every_backend_falls_to_known_exact_ones() -> None:
    for backend in BACKENDS.values():
        for name in backend.falls_to:
            assert BACKENDS[name].exact and name != backend.name


def test_classes() -> None:
    tradeoffs = {name for name in CHOICES if class_of(name) == "quality-tradeoff"}
    assert tradeoffs == {name for name in CHOICES if name.startswith("sage")}
    assert class_of("auto") == "output-preserving"
    assert class_of("auto", allow_low_precision=True) == "quality-tradeoff"


def test_a_missing_package_is_named_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    from dit_acceleration_pack.acceleration.attention import registry

    monkeypatch.setattr(registry, "is_installed", lambda _: False)
    found = {a.name: a for a in available_backends()}
    assert not found["sage"].available and found["sdpa"].available
    assert "python -m pip install sageattention" in found["sage"].reason
    assert "Cannot run here: flash (not installed), " in describe_choices()
    assert "sage3 (not installed)" in describe_choices()
    with pytest.raises(AccelerationError, match=r"pip install sageattention.*or choose auto"):
        AttentionSettings(backend="sage").require_installed()
    for always in ("auto", "default", "sdpa_cudnn"):
        AttentionSettings(backend=always).require_installed()


def test_an_empty_shell_of_a_package_is_not_installed(
    tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FlashAttention 4 alone leaves ``flash_attn`` without an ``__init__``."""
    (tmp_path / "shell_of_a_package" / "cute").mkdir(parents=True)
    (tmp_path / "shell_of_a_package" / "cute" / "__init__.py").touch()
    monkeypatch.syspath_prepend(str(tmp_path))
    assert not is_installed("shell_of_a_package")
    assert is_installed("shell_of_a_package.cute")
    assert not is_installed("shell_of_a_package.other")


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"backend": "warp"}, "backend is 'warp': choose one of auto"),
        ({"on_unsupported": "ignore"}, "on_unsupported is 'ignore'"),
        ({"attention_kind": "both"}, "attention_kind is 'both'"),
        ({"start_percent": 0.5, "end_percent": 0.5}, "start must be below end"),
        ({"first_block": 5, "last_block": 3}, "last_block not below it"),
    ],
)
def test_bad_settings_get_a_sentence(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(AccelerationError, match=said):
        AttentionSettings(**settings)


H100 = DeviceFacts("cuda", "an H100", (9, 0))
A100 = DeviceFacts("cuda", "an A100", (8, 0))
T4 = DeviceFacts("cuda", "a T4", (7, 5))
B200 = DeviceFacts("cuda", "a B200", (10, 0))
RTX_5090 = DeviceFacts("cuda", "an RTX 5090", (12, 0))
MI300 = DeviceFacts("rocm", "an MI300")


def limit(backend: str, device: DeviceFacts) -> str:
    return BACKENDS[backend].limits_on(device).why_not_device(device)


def test_limits_by_device() -> None:
    fits = {
        "flash": {H100, A100, B200, RTX_5090, MI300},
        "flash3": {H100},
        "flash4": {H100, B200, RTX_5090},
        "sage": {H100, A100, B200, RTX_5090},
        "sage_fp16": {H100, A100, B200, RTX_5090},
        "sage3": {B200, RTX_5090},
        "xformers": {H100, A100, T4, B200, RTX_5090, MI300},
        "sdpa": {H100, A100, T4, B200, RTX_5090, MI300},
        "sdpa_cudnn": {H100, A100, B200, RTX_5090},
        "sdpa_efficient": {H100, A100, T4, B200, RTX_5090, MI300},
    }
    every = {H100, A100, T4, B200, RTX_5090, MI300}
    for backend, devices in fits.items():
        assert {d for d in every if not limit(backend, d)} == devices, backend
    assert limit("flash", T4) == "it needs compute capability 8.0, this is a T4 (sm75)"


def test_the_starting_order_is_that_of_sglang() -> None:
    heads = {
        H100: ("flash3", "flash"),
        A100: ("flash", "sdpa"),
        T4: ("sdpa",),
        B200: ("sdpa_cudnn", "flash4"),
        RTX_5090: ("sdpa",),
        MI300: ("flash", "sdpa"),
        DeviceFacts("cpu", "cpu"): ("sdpa",),
        DeviceFacts("mps", "mps"): ("sdpa",),
    }
    for device, head in heads.items():
        order = race.starting_order(device)
        assert order[: len(head)] == head
        assert not any(name.startswith("sage") for name in order)
        assert "sdpa_math" not in order


def why_not_shape(args: tuple[Any, ...], kwargs: dict[str, Any]) -> str:
    return shape_of(Arguments.of(args, kwargs), kwargs)[1]


def test_calls_that_nobody_of_ours_understands() -> None:
    q, k, v = calls.made()
    first = {"skip_reshape": True}
    assert why_not_shape((q, k, v, 4), first) == ""
    assert "unknown argument 'window'" in why_not_shape((q, k, v, 4), first | {"window": 3})
    assert "5-D layout" in why_not_shape((q[None], k[None], v[None], 4), first)
    assert "different dtypes" in why_not_shape((q.half(), k, v, 4), first)
    assert "different batch sizes" in why_not_shape((q, k[:1], v[:1], 4), first)
    assert "do not fit the number of heads" in why_not_shape((q, k[:, :2], v[:, :2], 4), first)
    odd = torch.zeros(3, 33, 47)
    assert "mask of shape (3, 33, 47)" in why_not_shape((q, k, v, 4, odd), first)


@pytest.mark.parametrize("backend", ["auto", "sdpa", "sdpa_math"])
def test_a_5d_layout_is_left_to_the_host(backend: str) -> None:
    """``[B, S, H, L, D]``: right, because the function that the model meant computes it."""

    def five(q: Any, k: Any, v: Any, heads: int, **_: Any) -> torch.Tensor:
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    q, k, v = (t.unflatten(0, (1, 2)) for t in calls.made())
    run = AttentionRun(AttentionSettings(backend=backend))
    out = run.attend(five, (q, k, v, 4), {"skip_reshape": True})
    assert torch.equal(out, five(q, k, v, 4))
    report = run.close(True)
    assert report.counts == {("default", "5-D layout, where 4-D is expected"): 1}
    assert "default (five) because 5-D layout" in report.sentence()


def test_arguments_that_are_not_understood_are_left_to_the_host() -> None:
    q, k, v = calls.made()
    run = AttentionRun(AttentionSettings(backend="sdpa"))

    def other(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> str:
        return "as it is"

    assert run.attend(other, (), {"query": q, "key": k, "value": v}) == "as it is"
    assert run.close(True).counts == {("default", "its arguments are not understood"): 1}


def test_every_call_is_counted_with_its_reason() -> None:
    q, k, v = calls.made()
    run = AttentionRun(
        AttentionSettings(backend="sdpa", attention_kind="cross", first_block=1, last_block=2)
    )
    cross = (q, k, v, 4), {"skip_reshape": True}
    same = (k, k, v, 4), {"skip_reshape": True}
    for (args, kwargs), block in ((same, 1), (cross, 0), (cross, 1), (cross, 2), (cross, 3)):
        run.attend(host_zeros, args, kwargs | {"transformer_options": {"block_index": block}})
    run.attend(host_zeros, cross[0], cross[1] | {"transformer_options": {}})
    run.begin_evaluation(CPU, "it is before start_percent")
    run.attend(host_zeros, cross[0], cross[1] | {"transformer_options": {"block_index": 1}})
    report = run.close(True)
    assert report.counts == {
        ("sdpa", ""): 2,
        ("default", "attention_kind is cross"): 1,
        ("default", "it is outside first_block and last_block"): 2,
        ("default", "this model does not number its blocks"): 1,
        ("default", "it is before start_percent"): 1,
    }
    assert report.calls == 7


def test_devices_know_nothing_of_each_other() -> None:
    run = AttentionRun(AttentionSettings(backend="sdpa"))
    args = (*calls.made(), 4)
    run.begin_evaluation(torch.device("meta"), "it is after end_percent")
    run.attend(calls.refuse, args, {"skip_reshape": True})
    elsewhere = tuple(t.to("meta") if isinstance(t, torch.Tensor) else t for t in args)
    out = run.attend(host_zeros, elsewhere, {"skip_reshape": True})
    assert out.device.type == "meta"
    assert run.close(True).counts == {
        ("sdpa", ""): 1,
        ("default", "it is after end_percent"): 1,
    }


def test_an_earlier_override_serves_what_we_leave() -> None:
    def earlier(function: Any, *args: Any, **kwargs: Any) -> torch.Tensor:
        return function(*args, **kwargs) + 7

    q, k, v = calls.made()
    run = AttentionRun(AttentionSettings(backend="sdpa"), earlier)
    left = run.attend(host_zeros, (q, k, v, 4), {"skip_reshape": True, "window": 3})
    assert torch.equal(left, torch.full_like(q, 7))
    taken = run.attend(host_zeros, (q, k, v, 4), {"skip_reshape": True})
    exact = calls.reference((q, k, v, 4), {"skip_reshape": True})
    assert calls.error(taken, exact) < calls.BOUND[torch.float32]
    report = run.close(True)
    assert report.counts["sdpa", ""] == 1
    assert any("another attention override" in notice for notice in report.notices)


def test_pinning_puts_the_switches_of_torch_back() -> None:
    from torch.backends import cuda

    before = cuda.flash_sdp_enabled(), cuda.math_sdp_enabled(), cuda.cudnn_sdp_enabled()
    run = AttentionRun(AttentionSettings(backend="sdpa_math"))
    run.attend(calls.refuse, (*calls.made(), 4), {"skip_reshape": True})
    assert (cuda.flash_sdp_enabled(), cuda.math_sdp_enabled(), cuda.cudnn_sdp_enabled()) == before
    kernel = BACKENDS["sdpa_efficient"].load()
    q, k, v = calls.made()
    with pytest.raises(RuntimeError):
        kernel(q, k, v, None, None, False)
    assert (cuda.flash_sdp_enabled(), cuda.math_sdp_enabled(), cuda.cudnn_sdp_enabled()) == before


# ------------------------------------------------------------------ the race


def timed(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> Any:
    """Candidates with set times; returns what runs them and the names that ran."""
    ran: list[str] = []

    class Clock:
        def __init__(self, _: torch.device) -> None:
            pass

        def stop(self) -> Clock:
            return self

        def seconds(self) -> float:
            return seconds[ran[-1]]

    monkeypatch.setattr(race, "Span", Clock)

    def run(name: str) -> torch.Tensor:
        ran.append(name)
        if name == "broken":
            raise RuntimeError("no kernel")
        return torch.ones(4) * (2.0 if name == "wrong" else 1.0)

    return run, ran


def held(monkeypatch: pytest.MonkeyPatch, seconds: dict[str, float]) -> race.Outcome:
    run, _ = timed(monkeypatch, seconds)
    return race.race(list(seconds), run, CPU, lambda _: 0.01)


def test_the_fastest_wins(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = held(monkeypatch, {"first": 0.003, "second": 0.001, "third": 0.002})
    assert outcome.winner == "second"
    assert outcome.milliseconds == {"first": 3.0, "second": 1.0, "third": 2.0}
    assert outcome.sentence().startswith("second (second 1 ms, third 2 ms")


def test_the_rules_win_a_draw(monkeypatch: pytest.MonkeyPatch) -> None:
    assert held(monkeypatch, {"first": 0.00100, "second": 0.00099}).winner == "first"


def test_the_broken_and_the_wrong_leave(monkeypatch: pytest.MonkeyPatch) -> None:
    outcome = held(monkeypatch, {"broken": 0.0001, "first": 0.003, "wrong": 0.0001, "last": 0.002})
    assert outcome.winner == "last"
    assert set(outcome.dropped) == {"broken", "wrong"}
    assert "no kernel" in outcome.dropped["broken"] and "differs by 1" in outcome.dropped["wrong"]


def test_slow_candidates_run_twice_only(monkeypatch: pytest.MonkeyPatch) -> None:
    seconds = {"slow": 1.0, "quick": 0.001}
    run, ran = timed(monkeypatch, seconds)
    race.race(list(seconds), run, CPU, lambda _: 0.01)
    assert ran.count("slow") == 2 and ran.count("quick") == 1 + race.ROUNDS


def test_choices_are_remembered_by_class() -> None:
    memory: race.Memory = {}
    settings = AttentionSettings(backend="auto")
    q, k, v = calls.made()
    kwargs = {"skip_reshape": True}

    def basic(q: Any, k: Any, v: Any, heads: int, **_: Any) -> torch.Tensor:
        out = torch.nn.functional.scaled_dot_product_attention(q, k, v)
        return out.transpose(1, 2).flatten(2)

    first = AttentionRun(settings, None, memory)
    first.attend(basic, (q, k, v, 4), kwargs)
    ((key, kept),) = memory.items()
    assert f"torch {torch.__version__}" in key and "cpu" in key and "float32 4/4x64" in key
    assert set(kept["milliseconds"]) >= {"sdpa", "sdpa_flash", "default"}
    # Another winner in the file is believed, and near sizes share it.
    memory[key] = {"backend": "sdpa_flash"}
    for tokens in (47, 46):
        second = AttentionRun(settings, None, memory)
        second.attend(basic, (q, k[:, :, :tokens], v[:, :, :tokens], 4), kwargs)
        report = second.close(True)
        assert report.counts == {("sdpa_flash", ""): 1}
        assert "remembered" in next(iter(report.choices.values()))
    # Without the one that won, there is a new race.
    memory[key] = {"backend": "gone"}
    third = AttentionRun(settings, None, memory)
    third.attend(basic, (q, k, v, 4), kwargs)
    assert memory[key]["backend"] != "gone"


def test_a_host_with_a_quantizing_kernel_does_not_race() -> None:
    memory: race.Memory = {}

    def attention_sage(*_: Any, **__: Any) -> torch.Tensor:
        raise AssertionError("auto is exact")

    run = AttentionRun(AttentionSettings(backend="auto"), None, memory)
    run.attend(attention_sage, (*calls.made(), 4), {"skip_reshape": True})
    assert "default" not in next(iter(memory.values()))["milliseconds"]


# ------------------------------------------------------------------ probes


def test_a_probe_is_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    tried: list[int] = []

    def kernel(q: torch.Tensor, k: Any, v: Any, *_: Any) -> torch.Tensor:
        tried.append(k.shape[2])
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    backend = Backend("mine", "Mine", Limits(), lambda: kernel)
    probe.forget()
    for _ in range(3):
        found = probe.finding(backend, CPU, torch.float32)
    assert tried == [probe.ALIGNED_TOKENS, probe.RAGGED_TOKENS]
    assert found.reason == "" and found.error is not None and found.error < 1e-5
    assert not found.counts_padding
    probe.forget()


def test_random_numbers_of_a_run_are_left_alone() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    probe.forget()
    torch.manual_seed(1)
    AttentionRun(AttentionSettings(backend="sdpa")).check(CPU, torch.float32)
    assert torch.equal(torch.rand(3), expected)

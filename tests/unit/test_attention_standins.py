"""Routing to FlashAttention, SageAttention and xformers, against STAND-INS with their signatures.

Nothing here shows that the real kernels run: the packages in ``tests/standins`` compute with torch,
on the CPU. What is shown is that each call reaches the package in the layout and with the arguments
that it wants, and that calls outside its limits do not.
"""

from __future__ import annotations

import dataclasses
import importlib
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import attention_calls as calls
import pytest
import torch

STANDINS = Path(__file__).resolve().parent.parent / "standins"
PACKAGES = ("flash_attn", "flash_attn_interface", "sageattention", "sageattn3", "xformers")
HALF = torch.bfloat16


def take_packages_away() -> dict[str, Any]:
    """Remove what is loaded of the packages, real ones and stand-ins; returns it."""
    loaded = [name for name in sys.modules if name.partition(".")[0] in PACKAGES]
    return {name: sys.modules.pop(name) for name in loaded}


@pytest.fixture
def anywhere(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The stand-ins are installed, and every backend takes the CPU for its device."""
    from dit_acceleration_pack.acceleration.attention import BACKENDS, probe

    # The host looks for these packages when it is imported: not with the stand-ins in its way.
    importlib.import_module("comfy.ldm.modules.attention")
    monkeypatch.syspath_prepend(str(STANDINS))
    real = take_packages_away()
    for name, backend in BACKENDS.items():
        if backend.module:
            limits = dataclasses.replace(backend.limits, devices=None)
            monkeypatch.setitem(BACKENDS, name, dataclasses.replace(backend, limits=limits))
    probe.forget()
    yield
    probe.forget()
    take_packages_away()
    # Their operators are registered, and registering them a second time is an error.
    sys.modules.update(real)


def run_with(backend: str, **settings: Any) -> Any:
    from dit_acceleration_pack.acceleration.attention import AttentionRun, AttentionSettings

    return AttentionRun(AttentionSettings(backend=backend, **settings))


def seen(package: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = importlib.import_module(package).CALLS
    return found


EXACT = {
    "flash": "flash_attn",
    "flash3": "flash_attn_interface",
    "flash4": "flash_attn.cute",
    "xformers": "xformers.ops",
}


@pytest.mark.parametrize("backend", EXACT)
@pytest.mark.parametrize("heads_first", [True, False])
@pytest.mark.parametrize("heads_first_out", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 2])
def test_exact_packages_get_their_layout(
    anywhere: None, backend: str, heads_first: bool, heads_first_out: bool, kv_heads: int
) -> None:
    args = (*calls.made(dtype=HALF, kv_heads=kv_heads, heads_first=heads_first), 4)
    kwargs = {"skip_reshape": heads_first, "skip_output_reshape": heads_first_out}
    kwargs |= {"enable_gqa": True} if kv_heads == 2 else {}
    run = run_with(backend)
    out = run.attend(calls.refuse, args, kwargs)
    assert calls.error(out, calls.reference(args, kwargs)) < calls.BOUND[HALF]
    last = seen(EXACT[backend])[-1]
    assert last.get("q", last.get("query")) == (2, 33, 4, 64)
    assert run.close(True).counts == {(backend, ""): 1}


def test_flash_hands_on_the_scale(anywhere: None) -> None:
    args = (*calls.made(dtype=HALF), 4)
    kwargs = {"skip_reshape": True, "scale": 0.25}
    out = run_with("flash").attend(calls.refuse, args, kwargs)
    assert seen("flash_attn")[-1]["softmax_scale"] == 0.25
    assert calls.error(out, calls.reference(args, kwargs)) < calls.BOUND[HALF]


@pytest.mark.parametrize("mask", ["bool 2d", "bool keys", "float 3d", "float 4d", "float heads"])
def test_xformers_takes_masks(anywhere: None, mask: str) -> None:
    args = (*calls.made(dtype=HALF), 4, calls.masks(2, 4, 33, 47)[mask])
    out = run_with("xformers").attend(calls.refuse, args, {"skip_reshape": True})
    assert calls.error(out, calls.reference(args, {"skip_reshape": True})) < calls.BOUND[HALF]
    assert seen("xformers.ops")[-1]["biased"]


UNFIT = {
    "mask": ({"mask": True}, "float mask not supported"),
    "head size 512": ({"head_size": 512}, "head size 512 not supported (at most 256)"),
    "fp32": ({"dtype": torch.float32}, "float32 not supported (only bfloat16, float16)"),
    "causal rectangle": ({"causal": True}, "unequal numbers of queries and keys"),
}


@pytest.mark.parametrize("case", UNFIT)
def test_what_flash_cannot_take_goes_to_sdpa_with_the_reason(anywhere: None, case: str) -> None:
    wish, reason = UNFIT[case]
    dtype: torch.dtype = wish.get("dtype", HALF)
    q, k, v = calls.made(dtype=dtype, head_size=wish.get("head_size", 64))
    mask = calls.masks(2, 4, 33, 47)["float 3d"].to(dtype) if "mask" in wish else None
    kwargs: dict[str, Any] = {"skip_reshape": True, "mask": mask}
    run = run_with("flash")
    if wish.get("causal"):
        out = run.attend(calls.refuse, (q, k, v, 4), kwargs | {"is_causal": True})
        kwargs["mask"] = torch.ones(33, 47, dtype=torch.bool).tril()
    else:
        out = run.attend(calls.refuse, (q, k, v, 4), kwargs)
    assert calls.error(out, calls.reference((q, k, v, 4), kwargs)) < calls.BOUND[dtype]
    report = run.close(True)
    ((backend, why),) = report.counts
    assert backend == "sdpa" and why.startswith("flash: ") and reason in why
    assert reason in report.sentence()


def test_a_fallback_of_a_fallback(anywhere: None) -> None:
    """Head size 192 is too much for FlashAttention 4, not for 3."""
    args = (*calls.made(dtype=HALF, head_size=192), 4)
    run = run_with("flash4")
    run.attend(calls.refuse, args, {"skip_reshape": True})
    assert run.close(True).counts == {
        ("flash3", "flash4: head size 192 not supported (at most 128)"): 1
    }


@pytest.mark.parametrize(
    "former", ["sage_fp16_triton", "sage_fp8", "sage_fp8_fast", "sage_fp8_hopper"]
)
def test_a_choice_of_older_versions_is_served_by_what_took_its_place(
    anywhere: None, former: str
) -> None:
    today = "sage_fp16" if former == "sage_fp16_triton" else "sage"
    run = run_with(former)
    run.check(torch.device("cpu"), HALF)
    run.attend(calls.refuse, (*calls.made(dtype=HALF), 4), {"skip_reshape": True})
    report = run.close(True)
    assert report.counts == {(today, ""): 1}
    assert report.notices == [f"{former} is a choice of older versions; {today} takes its place"]
    assert report.quality_class == "quality-tradeoff"


@pytest.mark.parametrize(("backend", "told"), [("flash4", True), ("flash3", False)])
def test_the_report_says_that_a_kernel_is_experimental(
    anywhere: None, backend: str, told: bool
) -> None:
    run = run_with(backend)
    run.attend(calls.refuse, (*calls.made(dtype=HALF), 4), {"skip_reshape": True})
    run.attend(calls.refuse, (*calls.made(dtype=HALF, q_tokens=20), 4), {"skip_reshape": True})
    sentence = f"{backend} is experimental: not yet measured on a GPU by this pack"
    assert run.close(True).notices == [sentence] * told


@pytest.mark.parametrize("case", UNFIT)
def test_error_names_the_limit(anywhere: None, case: str) -> None:
    from dit_acceleration_pack.acceleration.errors import AccelerationError

    wish, reason = UNFIT[case]
    dtype: torch.dtype = wish.get("dtype", HALF)
    q, k, v = calls.made(dtype=dtype, head_size=wish.get("head_size", 64))
    kwargs: dict[str, Any] = {"skip_reshape": True, "is_causal": bool(wish.get("causal"))}
    if "mask" in wish:
        kwargs["mask"] = calls.masks(2, 4, 33, 47)["float 3d"].to(dtype)
    with pytest.raises(AccelerationError) as raised:
        run_with("flash", on_unsupported="error").attend(calls.refuse, (q, k, v, 4), kwargs)
    assert reason in str(raised.value) and "fallback" in str(raised.value)


SAGE_ERROR = 0.03
"""8-bit queries and keys on normal numbers; wrong arguments give 0.3 and more."""


@pytest.mark.parametrize("heads_first", [True, False])
@pytest.mark.parametrize("backend", ["sage", "sage_fp16"])
def test_sage_gets_heads_first_and_leaves_the_keys_alone(
    anywhere: None, backend: str, heads_first: bool
) -> None:
    q, k, v = calls.made(dtype=HALF, heads_first=heads_first)
    k = k + 3
    before = k.clone()
    kwargs = {"skip_reshape": heads_first}
    run = run_with(backend)
    out = run.attend(calls.refuse, (q, k, v, 4), kwargs)
    assert torch.equal(k, before)
    assert calls.error(out, calls.reference((q, k, v, 4), kwargs)) < SAGE_ERROR
    last = seen("sageattention")[-1]
    assert last["q"] == (2, 4, 33, 64)
    if backend == "sage":
        assert last["smooth_k"] is False
    else:
        assert (last["name"], last["pv_accum_dtype"]) == ("fp16", "fp32")
    report = run.close(True)
    assert report.counts == {(backend, ""): 1}
    assert report.quality_class == "quality-tradeoff"


def test_head_sizes_of_the_first_sage_fall_back(anywhere: None) -> None:
    args = (*calls.made(dtype=HALF, head_size=80), 4)
    run = run_with("sage")
    out = run.attend(calls.refuse, args, {"skip_reshape": True})
    assert calls.error(out, calls.reference(args, {"skip_reshape": True})) < calls.BOUND[HALF]
    ((backend, why),) = run.close(True).counts
    assert backend == "flash" and "head size 80 not supported by this version" in why


@pytest.mark.parametrize("on_unsupported", ["fallback", "error"])
@pytest.mark.parametrize("backend", ["sage", "sage3"])
def test_full_precision_never_goes_to_a_quantizing_kernel(
    anywhere: None, backend: str, on_unsupported: str
) -> None:
    args = (*calls.made(q_tokens=1100, dtype=HALF), 4)
    kwargs = {"skip_reshape": True, "low_precision_attention": False}
    run = run_with(backend, on_unsupported=on_unsupported)
    before = len(seen("sageattention")), len(seen("sageattn3"))
    run.check(torch.device("cpu"), HALF)
    tried = len(seen("sageattention")), len(seen("sageattn3"))
    out = run.attend(calls.refuse, args, kwargs)
    assert (len(seen("sageattention")), len(seen("sageattn3"))) == tried != before
    assert calls.error(out, calls.reference(args, kwargs)) < calls.BOUND[HALF]
    ((_, why),) = run.close(True).counts
    assert "this model asks for full precision here" in why


def test_sage3_gets_long_contiguous_calls_and_a_copy_of_the_keys(anywhere: None) -> None:
    q, k, v = calls.made(q_tokens=1100, dtype=HALF, heads_first=False)
    before = k.clone()
    run = run_with("sage3")
    run.attend(calls.refuse, (q, k, v, 4), {})
    assert seen("sageattn3")[-1]["q"] == (2, 4, 1100, 64)
    assert torch.equal(k, before)
    short = (*calls.made(dtype=HALF), 4)
    run.attend(calls.refuse, short, {"skip_reshape": True})
    run.attend(calls.refuse, (q, k, v, 4), {"scale": 0.2})
    assert run.close(True).counts == {
        ("sage3", ""): 1,
        ("sdpa", "sage3: 33 queries are too few (at least 1025)"): 1,
        ("sdpa", "sage3: a scale of its own not supported"): 1,
    }


def test_a_kernel_that_counts_padding_keeps_to_full_blocks(
    anywhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As SageAttention 1.0.6 does: zeros behind the last key weigh like keys."""
    import sageattention

    def padding(q: Any, k: Any, v: Any, tensor_layout: str = "HND", **options: Any) -> Any:
        short = -k.shape[2] % 64
        k, v = (torch.nn.functional.pad(t, (0, 0, 0, short)) for t in (k, v))
        return torch.nn.functional.scaled_dot_product_attention(q, k, v)

    monkeypatch.setattr(sageattention, "sageattn", padding)
    run = run_with("sage")
    for tokens in (128, 77, 32760):
        args = (*calls.made(1, 1, 8, tokens, dtype=HALF), 1)
        out = run.attend(calls.refuse, args, {"skip_reshape": True})
        exact = calls.reference(args, {"skip_reshape": True})
        assert calls.error(out, exact) < SAGE_ERROR, tokens
    found = dict(run.close(True).counts.keys())
    assert set(found) == {"sage", "flash"}
    assert "77 keys are no multiple of 64" in found["flash"]


@pytest.mark.parametrize("trouble", ["raises", "nan", "wrong"])
def test_a_broken_wheel_is_found_before_it_is_used(
    anywhere: None, monkeypatch: pytest.MonkeyPatch, trouble: str
) -> None:
    import flash_attn

    from dit_acceleration_pack.acceleration.errors import AccelerationError

    def broken(q: torch.Tensor, *_: Any, **__: Any) -> torch.Tensor:
        if trouble == "raises":
            raise RuntimeError("no kernel image is available for execution on the device")
        return torch.full_like(q, float("nan")) if trouble == "nan" else q.clone()

    monkeypatch.setattr(flash_attn, "flash_attn_func", broken)
    said = {"raises": "no kernel image", "nan": "wrong results here (error nan", "wrong": "wrong"}
    run = run_with("flash")
    run.check(torch.device("cpu"), HALF)
    assert said[trouble] in run.report.probes["flash"]
    args = (*calls.made(dtype=HALF), 4)
    out = run.attend(calls.refuse, args, {"skip_reshape": True})
    assert calls.error(out, calls.reference(args, {"skip_reshape": True})) < calls.BOUND[HALF]
    ((backend, why),) = run.close(True).counts
    assert backend == "sdpa" and said[trouble] in why
    with pytest.raises(AccelerationError, match="flash cannot take"):
        run_with("flash", on_unsupported="error").check(torch.device("cpu"), HALF)


def test_a_kernel_that_fails_in_mid_run_is_left(anywhere: None) -> None:
    run = run_with("flash")
    args = (*calls.made(dtype=HALF), 4)
    run.attend(calls.refuse, args, {"skip_reshape": True})

    def failing(*_: Any, **__: Any) -> torch.Tensor:
        raise RuntimeError("an illegal memory access was encountered")

    (state,) = run._devices.values()
    for plan in state.plans.values():
        plan.kernel = failing
    for _ in range(2):
        out = run.attend(calls.refuse, args, {"skip_reshape": True})
        assert calls.error(out, calls.reference(args, {"skip_reshape": True})) < calls.BOUND[HALF]
    report = run.close(True)
    assert report.counts["flash", ""] == 1
    ((why, count),) = [(w, n) for (b, w), n in report.counts.items() if b == "sdpa"]
    assert count == 2 and "illegal memory access" in why


def test_auto_takes_quantizing_kernels_only_when_allowed(
    anywhere: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dit_acceleration_pack.acceleration.attention import planner

    raced: list[list[str]] = []

    def race(candidates: list[str], *_: Any) -> Any:
        raced.append(candidates)
        return planner.Outcome("sage" if "sage" in candidates else candidates[-1])

    monkeypatch.setattr(planner, "race", race)
    args = (*calls.made(dtype=HALF), 4)
    for allowed in (False, True):
        run = run_with("auto", allow_low_precision=allowed)
        run.attend(lambda q, *_, **__: torch.zeros_like(q), args, {"skip_reshape": True})
        assert run.close(True).quality_class == (
            "quality-tradeoff" if allowed else "output-preserving"
        )
    assert {"flash", "xformers", "sdpa"} <= set(raced[0]) and "sage" not in raced[0]
    assert {"sage", "sage_fp16"} <= set(raced[1])
    assert "sdpa_math" not in raced[1]

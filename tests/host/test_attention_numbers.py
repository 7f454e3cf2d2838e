"""Every SDPA variant against the host's attention_basic in float64, on made and on real calls."""

from __future__ import annotations

from collections import Counter
from typing import Any

import attention_calls as calls
import pytest
import tiny_models
import torch
from tiny_families import POPULAR, TINY
from whole import whole

VARIANTS = ("sdpa", "sdpa_flash", "sdpa_math")
"""Those whose kernel exists on the CPU."""

ON_CUDA = {
    "sdpa_flash": ("sdpa", "sdpa_flash: float32 not supported (only bfloat16, float16)"),
}
"""Who takes calls in float32 on CUDA instead, and why."""


def run_with(backend: str, **settings: Any) -> Any:
    from dit_acceleration_pack.acceleration.attention import AttentionRun, AttentionSettings

    return AttentionRun(AttentionSettings(backend=backend, **settings))


def ran(run: Any) -> Counter[str]:
    """Calls by who computed them."""
    found: Counter[str] = Counter()
    for (backend, _), count in run.close(True).counts.items():
        found[backend] += count
    return found


@pytest.mark.parametrize("backend", VARIANTS)
@pytest.mark.parametrize("dtype", calls.BOUND, ids=str)
@pytest.mark.parametrize("head_size", [16, 40, 64, 128, 256, 512])
def test_head_sizes_and_dtypes(backend: str, dtype: torch.dtype, head_size: int) -> None:
    run = run_with(backend)
    args = (*calls.made(head_size=head_size, dtype=dtype), 4)
    kwargs = {"skip_reshape": True}
    out = run.attend(calls.refuse, args, kwargs)
    assert out.dtype == dtype
    assert calls.error(out, calls.reference(args, kwargs)) < calls.BOUND[dtype]
    assert ran(run) == {backend: 1}


@pytest.mark.parametrize("backend", VARIANTS)
@pytest.mark.parametrize("heads_first", [True, False])
@pytest.mark.parametrize("heads_first_out", [True, False])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_masks_layouts_and_groups(
    backend: str, heads_first: bool, heads_first_out: bool, kv_heads: int
) -> None:
    run = run_with(backend)
    qkv = calls.made(kv_heads=kv_heads, heads_first=heads_first)
    kinds = calls.masks(2, 4, 33, 47)
    for name, mask in kinds.items():
        kwargs: dict[str, Any] = {"skip_reshape": heads_first}
        kwargs["skip_output_reshape"] = heads_first_out
        if kv_heads != 4:
            kwargs["enable_gqa"] = True
        args = (*qkv, 4, mask)
        out = run.attend(calls.refuse, args, kwargs)
        assert calls.error(out, calls.reference(args, kwargs)) < calls.BOUND[torch.float32], name
    assert ran(run) == {backend: len(kinds)}


@pytest.mark.parametrize("backend", VARIANTS)
def test_scale_and_keywords(backend: str) -> None:
    run = run_with(backend)
    q, k, v = calls.made()
    for kwargs in (
        {"heads": 4, "skip_reshape": True, "scale": 0.3},
        {"heads": 4, "skip_reshape": True, "scale": None, "mask": None, "attn_precision": None},
    ):
        out = run.attend(calls.refuse, (q, k, v), kwargs)
        exact = calls.reference((q, k, v), kwargs)
        assert calls.error(out, exact) < calls.BOUND[torch.float32]
    assert ran(run) == {backend: 2}


def test_causal_attention_is_that_of_torch() -> None:
    q, k, v = calls.made(q_tokens=33, kv_tokens=33)
    kwargs = {"skip_reshape": True, "is_causal": True}
    below = torch.ones(33, 33, dtype=torch.bool).tril()
    exact = calls.reference((q, k, v, 4), {"skip_reshape": True, "mask": below})
    for backend in VARIANTS:
        out = run_with(backend).attend(calls.refuse, (q, k, v, 4), kwargs)
        assert calls.error(out, exact) < calls.BOUND[torch.float32]


def count_calls(model: Any, family: str) -> int:
    """How many attention calls of a step the host asks an override about, counted without us."""
    seen = [0]

    def counting(function: Any, *args: Any, **kwargs: Any) -> Any:
        seen[0] += 1
        return function(*args, **kwargs)

    watched = model.clone()
    options = watched.model_options["transformer_options"]
    watched.model_options["transformer_options"] = {
        **options,
        "optimized_attention_override": counting,
    }
    tiny_models.sample(watched, family, steps=1)
    return seen[0]


@pytest.mark.parametrize("family", [*POPULAR, *whole(n for n in TINY if n not in POPULAR)])
def test_every_family(family: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """All calls of a real model are counted, and each result is right."""
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.attention import AttentionRun, AttentionSettings

    model = tiny_models.make_model(family)
    elsewhere = ON_CUDA if model.load_device.type == "cuda" else {}
    expected = count_calls(model, family)
    errors: list[float] = []
    attend = AttentionRun.attend

    def checked(self: Any, function: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        out = attend(self, function, args, kwargs)
        errors.append(calls.error(out, calls.reference(args, kwargs)))
        return out

    monkeypatch.setattr(AttentionRun, "attend", checked)
    for backend in VARIANTS:
        errors.clear()
        accelerated = host.attach_attention(model, AttentionSettings(backend=backend))
        tiny_models.sample(accelerated, family, steps=1)
        report = host.lever_of(accelerated, host.ATTENTION_KEY).last_report
        assert report.calls == expected == len(errors)
        assert all(e < calls.BOUND[torch.float32] for e in errors), max(errors)
        if expected:
            assert report.counts == {elsewhere.get(backend, (backend, "")): expected}
        else:
            assert "no attention call was seen" in report.sentence()


def test_most_families_route_their_attention() -> None:
    """The test above is about something: these would be the first to be missed."""
    for family in tiny_models.POPULAR:
        assert count_calls(tiny_models.make_model(family), family) > 0

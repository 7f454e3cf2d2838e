"""PyTorch's kernels, called one by one: what they compute, what they are given, what they leave.

The kernels of CUDA are shown here by STAND-INS that look at their arguments and compute on the CPU;
that the real ones agree is shown in ``tests/host/test_attention_gpu.py``.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Iterator
from typing import Any

import attention_calls as calls
import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from dit_acceleration_pack.acceleration.attention import BACKENDS, AttentionRun, AttentionSettings
from dit_acceleration_pack.acceleration.attention.backends import sdpa

ON_CPU = {"sdpa_flash": SDPBackend.FLASH_ATTENTION, "sdpa_math": SDPBackend.MATH}
MASKS = calls.masks(2, 4, 33, 47)
DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]


def kernel_of(backend: str) -> Any:
    return BACKENDS[backend].load()


def mask_4d(name: str) -> torch.Tensor | None:
    mask = MASKS[name]
    while mask is not None and mask.ndim < 4:
        mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
    return mask


def switches() -> tuple[bool, ...]:
    from torch.backends import cuda

    return (
        *(cuda.flash_sdp_enabled(), cuda.mem_efficient_sdp_enabled()),
        *(cuda.math_sdp_enabled(), cuda.cudnn_sdp_enabled()),
    )


@pytest.mark.parametrize("backend", ON_CPU)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@pytest.mark.parametrize("head_size", [16, 40, 63, 128])
@pytest.mark.parametrize("kv_heads", [4, 2, 1])
def test_the_same_bits_as_sdpa_pinned(
    backend: str, dtype: torch.dtype, head_size: int, kv_heads: int
) -> None:
    q, k, v = calls.made(head_size=head_size, kv_heads=kv_heads, dtype=dtype)
    for name in MASKS:
        mask = mask_4d(name)
        if mask is not None and mask.dtype != torch.bool and name != "float 2d":
            mask = mask.to(dtype)  # "float 2d" stays in float32, which SDPA allows
        for scale in (None, 0.3):
            with sdpa_kernel(ON_CPU[backend]):
                exact = scaled_dot_product_attention(
                    q, k, v, mask, scale=scale, enable_gqa=kv_heads != 4
                )
            out = kernel_of(backend)(q, k, v, mask, scale, False)
            assert torch.equal(out, exact), (name, scale)


@pytest.mark.parametrize("backend", ON_CPU)
def test_the_same_bits_causal_and_where_rows_are_wholly_hidden(backend: str) -> None:
    q, k, v = calls.made(q_tokens=47)
    hidden = torch.ones(1, 1, 47, 47, dtype=torch.bool)
    hidden[:, :, 5] = False
    for mask, causal in ((None, True), (hidden, False)):
        with sdpa_kernel(ON_CPU[backend]):
            exact = scaled_dot_product_attention(q, k, v, mask, is_causal=causal)
        assert torch.equal(kernel_of(backend)(q, k, v, mask, None, causal), exact)


@pytest.mark.parametrize("backend", ON_CPU)
def test_elements_that_do_not_lie_side_by_side(backend: str) -> None:
    """The kernel of the CPU reads past them without a word."""
    q, k, v = calls.made()
    apart = [t.transpose(2, 3).contiguous().transpose(2, 3) for t in (q, k, v)]
    assert apart[0].stride(3) != 1
    out = kernel_of(backend)(*apart, None, None, False)
    assert calls.error(out, kernel_of(backend)(q, k, v, None, None, False)) < 1e-6


@pytest.mark.parametrize("backend", ON_CPU)
def test_compiled_and_with_gradients(backend: str) -> None:
    kernel = kernel_of(backend)
    q, k, v = calls.made()
    torch._dynamo.reset()
    compiled = torch.compile(kernel, backend="eager", fullgraph=True)
    with torch.inference_mode():
        exact = kernel(q, k, v, mask_4d("bool 2d"), None, False)
        assert torch.equal(compiled(q, k, v, mask_4d("bool 2d"), None, False), exact)
    torch._dynamo.reset()
    q = q.clone().requires_grad_()
    kernel(q, k, v, None, None, False).sum().backward()
    assert q.grad is not None
    found, q.grad = q.grad, None
    with sdpa_kernel(ON_CPU[backend]):
        scaled_dot_product_attention(q, k, v).sum().backward()
    assert torch.allclose(found, q.grad, atol=1e-6)


@pytest.mark.parametrize("backend", ON_CPU)
def test_ordinary_calls_of_another_thread_find_their_kernels(backend: str) -> None:
    """Pinning by PyTorch's switches made nearly every one of them fail, or change."""
    q, k, v = calls.made(1, 2, 16, 16, 16)
    before = switches()
    run = AttentionRun(AttentionSettings(backend=backend))
    over = threading.Event()
    seen: set[tuple[bool, ...]] = set()
    wrong: list[str] = []
    # Only the other kernel may serve the ordinary calls, so that switching it off shows.
    (other,) = (kernel for name, kernel in ON_CPU.items() if name != backend)
    with sdpa_kernel([other]):
        allowed = switches()
        exact = scaled_dot_product_attention(q, k, v)

        def ordinary() -> None:
            while not over.is_set():
                seen.add(switches())
                try:
                    if not torch.equal(scaled_dot_product_attention(q, k, v), exact):
                        wrong.append("other bits")
                except RuntimeError as problem:
                    wrong.append(str(problem))

        thread = threading.Thread(target=ordinary)
        thread.start()
        for _ in range(3000):
            run.attend(calls.refuse, (q, k, v, 2), {"skip_reshape": True})
        over.set()
        thread.join()
    assert not wrong, f"{len(wrong)} calls failed: {wrong[0]}"
    assert seen == {allowed} and switches() == before
    assert run.close(True).counts == {(backend, ""): 3000}


# ------------------------------------------------------------------ stand-ins for CUDA's


class Given:
    """Arguments of the last call of an operator's stand-in."""

    def __init__(self) -> None:
        self.q = self.k = self.bias = torch.empty(0)
        self.scale: float | None = None
        self.log_sum_exp = False


@pytest.fixture
def operators(monkeypatch: pytest.MonkeyPatch) -> Iterator[Given]:
    """CUDA's operators with their real signatures, on tensors that pass for CUDA's."""
    given = Given()

    def take(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        bias: torch.Tensor | None,
        causal: bool,
        scale: float | None,
    ) -> torch.Tensor:
        assert all(t.stride(3) == 1 for t in (q, k, v))
        given.q, given.k, given.scale = q, k, scale
        if bias is not None:
            assert bias.dtype == q.dtype and bias.ndim == 4 and bias.stride(3) == 1
            given.bias = bias
        return scaled_dot_product_attention(
            q, k, v, bias, is_causal=causal, scale=scale, enable_gqa=k.shape[1] != q.shape[1]
        )

    def flash(
        query: Any,
        key: Any,
        value: Any,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        return_debug_mask: bool = False,
        *,
        scale: float | None = None,
    ) -> tuple[Any, ...]:
        assert query.shape[3] % 8 == 0 and not dropout_p and not return_debug_mask
        return (take(query, key, value, None, is_causal, scale), *[None] * 8)

    def efficient(
        query: Any,
        key: Any,
        value: Any,
        attn_bias: Any,
        compute_log_sumexp: bool,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        *,
        scale: float | None = None,
    ) -> tuple[Any, ...]:
        assert query.shape[1] == key.shape[1] and not dropout_p
        if attn_bias is not None:
            assert attn_bias.shape == (*query.shape[:3], key.shape[2])
            assert not any(step % 8 for step in attn_bias.stride()[:3])
        given.log_sum_exp = compute_log_sumexp
        return (take(query, key, value, attn_bias, is_causal, scale), *[None] * 3)

    def cudnn(
        query: Any,
        key: Any,
        value: Any,
        attn_bias: Any,
        compute_log_sumexp: bool,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        return_debug_mask: bool = False,
        *,
        scale: float | None = None,
    ) -> tuple[Any, ...]:
        assert not dropout_p and not return_debug_mask
        given.log_sum_exp = compute_log_sumexp
        return (take(query, key, value, attn_bias, is_causal, scale), *[None] * 8)

    for name, standin in (("flash", flash), ("efficient", efficient), ("cudnn", cudnn)):
        monkeypatch.setattr(torch, f"_scaled_dot_product_{name}_attention", standin)
    monkeypatch.setattr(sdpa, "_is_cpu", lambda _: False)
    monkeypatch.setattr(
        sdpa, "_CHECKS", {name: (lambda: True, lambda _: True) for name in sdpa._CHECKS}
    )
    yield given


BIASED = ("sdpa_efficient", "sdpa_cudnn")
CUDA_ONLY = ("sdpa_flash", *BIASED)


@pytest.mark.parametrize("backend", CUDA_ONLY)
@pytest.mark.parametrize("kv_heads", [4, 2])
@pytest.mark.parametrize("scale", [None, 0.3])
@pytest.mark.parametrize("causal", [False, True])
def test_groups_scale_and_causality_reach_the_operators(
    operators: Given, backend: str, kv_heads: int, scale: float | None, causal: bool
) -> None:
    q, k, v = calls.made(q_tokens=47, kv_heads=kv_heads, heads_first=True)
    q = q.transpose(2, 3).contiguous().transpose(2, 3)
    if not BACKENDS[backend].limits.grouped:  # heads are repeated before it is called
        k, v = (t.repeat_interleave(4 // kv_heads, dim=1) for t in (k, v))
    out = kernel_of(backend)(q, k, v, None, scale, causal)
    exact = scaled_dot_product_attention(
        q, k, v, is_causal=causal, scale=scale, enable_gqa=k.shape[1] != 4
    )
    assert calls.error(out, exact) < 1e-6


@pytest.mark.parametrize("head_size", [40, 63, 66])
def test_flash_fills_heads_up_and_keeps_their_scale(operators: Given, head_size: int) -> None:
    q, k, v = calls.made(head_size=head_size)
    out = sdpa._flash(q, k, v, None, None, False)
    assert operators.q.shape[3] == -(-head_size // 8) * 8
    assert operators.scale == pytest.approx(1 / math.sqrt(head_size))
    assert calls.error(out, scaled_dot_product_attention(q, k, v)) < 1e-6


@pytest.mark.parametrize("backend", BIASED)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
@pytest.mark.parametrize("name", [name for name in MASKS if name != "none"])
@pytest.mark.parametrize("kv_tokens", [47, 48])
def test_masks_are_what_the_operators_take(
    operators: Given, backend: str, dtype: torch.dtype, name: str, kv_tokens: int
) -> None:
    """Of the queries' dtype (cuDNN reads others as if they were), aligned, and added."""
    q, k, v = calls.made(kv_tokens=kv_tokens, dtype=dtype)
    mask = mask_4d(name)
    assert mask is not None
    if kv_tokens == 48:
        mask = torch.cat([mask, mask[..., :1]], dim=3)
    before = mask.clone()
    out = kernel_of(backend)(q, k, v, mask, None, False)
    with sdpa_kernel(SDPBackend.MATH):
        exact = scaled_dot_product_attention(
            *(t.double() for t in (q, k, v)), mask if mask.dtype == torch.bool else mask.double()
        )
    assert calls.error(out, exact) < calls.BOUND[dtype]
    assert torch.equal(mask, before)


def test_one_mask_value_for_all_keys_and_a_slice_of_a_mask(operators: Given) -> None:
    q, k, v = calls.made(kv_tokens=48)
    one = torch.randn(2, 1, 33, 1)
    sliced = torch.randn(2, 1, 33, 97)[..., ::2][..., :48]
    for mask in (one, sliced):
        exact = scaled_dot_product_attention(q, k, v, mask.expand(2, 1, 33, 48))
        for kernel in map(kernel_of, BIASED):
            assert calls.error(kernel(q, k, v, mask, None, False), exact) < 1e-6


@pytest.mark.parametrize(
    ("version", "hidden"), [(90501, -65504.0), (91900, -math.inf), (None, -65504.0)]
)
def test_what_hides_a_key_from_cudnn(
    operators: Given, monkeypatch: pytest.MonkeyPatch, version: int | None, hidden: float
) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "version", lambda: version)
    sdpa._hidden_from_cudnn.cache_clear()
    kernel_of("sdpa_cudnn")(*calls.made(), mask_4d("bool 2d"), None, False)
    assert operators.bias.min() == hidden
    sdpa._hidden_from_cudnn.cache_clear()


def test_what_a_gradient_needs_is_kept_only_for_one(operators: Given) -> None:
    q, k, v = calls.made()
    q.requires_grad_()
    for kernel in map(kernel_of, BIASED):
        kernel(q, k, v, None, None, False)
        assert operators.log_sum_exp
        with torch.no_grad():
            kernel(q, k, v, None, None, False)
        assert not operators.log_sum_exp


@pytest.mark.parametrize("backend", CUDA_ONLY)
def test_pytorchs_own_no_counts_only_while_the_kernel_is_switched_on(
    operators: Given, monkeypatch: pytest.MonkeyPatch, backend: str
) -> None:
    """Another thread may have it switched off just now, which says nothing about the call."""
    for enabled, refused in ((True, True), (False, False)):
        answers = {name: (lambda on=enabled: on, lambda _: False) for name in sdpa._CHECKS}
        monkeypatch.setattr(sdpa, "_CHECKS", answers)
        if refused:
            with pytest.raises(RuntimeError, match="own checks refuse"):
                kernel_of(backend)(*calls.made(), None, None, False)
        else:
            kernel_of(backend)(*calls.made(), None, None, False)

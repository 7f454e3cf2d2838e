"""A stand-in for SageAttention with the signatures of 1.0.6 and 2.2.

It multiplies 8-bit queries and keys as the package does, in plain torch. Like 1.0.6 it subtracts
the mean of the keys in the caller's tensor when ``smooth_k`` is asked of it.
"""

from __future__ import annotations

from typing import Any

import torch

CALLS: list[dict[str, Any]] = []


def _int8(t: torch.Tensor) -> torch.Tensor:
    step = t.abs().amax(dim=(2, 3), keepdim=True) / 127
    return (t / step).round() * step


def _attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tensor_layout: str,
    is_causal: bool,
    sm_scale: float | None,
) -> torch.Tensor:
    assert q.dtype in (torch.float16, torch.bfloat16)
    assert q.stride(-1) == 1 and k.stride(-1) == 1 and v.stride(-1) == 1
    if tensor_layout == "NHD":
        q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    out = torch.nn.functional.scaled_dot_product_attention(
        _int8(q.float()),
        _int8(k.float()),
        v.float(),
        is_causal=is_causal,
        scale=sm_scale,
        enable_gqa=True,
    ).to(q.dtype)
    return out.transpose(1, 2) if tensor_layout == "NHD" else out


def sageattn(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tensor_layout: str = "HND",
    is_causal: bool = False,
    sm_scale: float | None = None,
    smooth_k: bool = True,
    **kwargs: Any,
) -> torch.Tensor:
    """1.0.6."""
    assert q.size(-1) in [64, 96, 128], "headdim should be in [64, 96, 128]."
    CALLS.append({"name": "sageattn", "q": tuple(q.shape), "smooth_k": smooth_k})
    if smooth_k:
        k -= k.mean(dim=1 if tensor_layout == "NHD" else 2, keepdim=True)
    return _attend(q, k, v, tensor_layout, is_causal, sm_scale)


def sageattn_qk_int8_pv_fp16_cuda(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    tensor_layout: str = "HND",
    is_causal: bool = False,
    qk_quant_gran: str = "per_thread",
    sm_scale: float | None = None,
    pv_accum_dtype: str = "fp32",
    smooth_k: bool = True,
    smooth_v: bool = False,
    return_lse: bool = False,
    **kwargs: Any,
) -> torch.Tensor:
    """2.2."""
    assert q.size(-1) <= 128
    CALLS.append({"name": "fp16", "q": tuple(q.shape), "pv_accum_dtype": pv_accum_dtype})
    return _attend(q, k, v, tensor_layout, is_causal, sm_scale)

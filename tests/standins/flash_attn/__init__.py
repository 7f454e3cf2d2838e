"""A stand-in for flash-attn 2 with its signature and limits; computes with torch, on any device."""

from __future__ import annotations

from typing import Any

import torch

CALLS: list[dict[str, Any]] = []


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    dropout_p: float = 0.0,
    softmax_scale: float | None = None,
    causal: bool = False,
    window_size: tuple[int, int] = (-1, -1),
    softcap: float = 0.0,
    alibi_slopes: torch.Tensor | None = None,
    deterministic: bool = False,
    return_attn_probs: bool = False,
) -> torch.Tensor:
    """``[B, L, H, D]`` in and out."""
    assert q.dtype in (torch.float16, torch.bfloat16), "FlashAttention only support fp16 and bf16"
    assert q.shape[3] <= 256, "head dimension at most 256"
    assert q.shape[2] % k.shape[2] == 0
    CALLS.append({"q": tuple(q.shape), "k": tuple(k.shape), "softmax_scale": softmax_scale})
    q, k, v = (t.transpose(1, 2) for t in (q, k, v))
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, scale=softmax_scale, is_causal=causal, enable_gqa=True
    ).transpose(1, 2)

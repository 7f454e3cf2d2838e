"""A stand-in for xformers.ops (0.0.35): no grouped heads, strict about its bias."""

from __future__ import annotations

from typing import Any

import torch

CALLS: list[dict[str, Any]] = []


class LowerTriangularMask:
    """Causal attention."""


def memory_efficient_attention(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attn_bias: torch.Tensor | LowerTriangularMask | None = None,
    p: float = 0.0,
    scale: float | None = None,
    *,
    op: Any = None,
    output_dtype: torch.dtype | None = None,
) -> torch.Tensor:
    """``[B, L, H, D]`` in and out."""
    assert query.shape[2] == key.shape[2] == value.shape[2]
    assert query.stride(-1) == 1 and key.stride(-1) == 1 and value.stride(-1) == 1
    CALLS.append({"query": tuple(query.shape), "biased": attn_bias is not None})
    mask = None
    if isinstance(attn_bias, torch.Tensor):
        assert attn_bias.dtype == query.dtype
        full = (query.shape[0], query.shape[2], query.shape[1], key.shape[1])
        assert tuple(attn_bias.shape) == full and attn_bias.stride(-2) % 8 == 0
        mask = attn_bias
    q, k, v = (t.transpose(1, 2) for t in (query, key, value))
    return torch.nn.functional.scaled_dot_product_attention(
        q, k, v, attn_mask=mask, scale=scale, is_causal=isinstance(attn_bias, LowerTriangularMask)
    ).transpose(1, 2)

"""A stand-in for FlashAttention 3 with its signature: no ``dropout_p``."""

from __future__ import annotations

from typing import Any

import flash_attn
import torch

CALLS: list[dict[str, Any]] = []


def flash_attn_func(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    softmax_scale: float | None = None,
    causal: bool = False,
    qv: torch.Tensor | None = None,
    q_descale: torch.Tensor | None = None,
    k_descale: torch.Tensor | None = None,
    v_descale: torch.Tensor | None = None,
    window_size: tuple[int, int] = (-1, -1),
    attention_chunk: int = 0,
    softcap: float = 0.0,
    num_splits: int = 1,
    pack_gqa: bool | None = None,
    deterministic: bool = False,
    sm_margin: int = 0,
    return_attn_probs: bool = False,
) -> torch.Tensor:
    """``[B, L, H, D]`` in and out."""
    CALLS.append({"q": tuple(q.shape)})
    return flash_attn.flash_attn_func(q, k, v, softmax_scale=softmax_scale, causal=causal)

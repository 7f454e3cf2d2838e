"""Attention calls as the host makes them, and what they should give, for the attention tests."""

from __future__ import annotations

import math
from typing import Any

import torch

BOUND = {
    torch.float64: 1e-12,
    torch.float32: 2e-6,
    torch.float16: 2e-3,
    torch.bfloat16: 1.5e-2,
}
"""Relative error (L2) that rounding alone explains."""


def made(
    batch: int = 2,
    heads: int = 4,
    q_tokens: int = 33,
    kv_tokens: int = 47,
    head_size: int = 64,
    kv_heads: int | None = None,
    dtype: torch.dtype = torch.float32,
    heads_first: bool = True,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Seeded q, k, v, ``[B, H, L, D]`` or ``[B, L, H·D]``."""
    generator = torch.Generator().manual_seed(3)
    found = []
    for tokens, count in ((q_tokens, heads), (kv_tokens, kv_heads or heads), (kv_tokens, None)):
        count = count or kv_heads or heads
        t = torch.randn(batch, count, tokens, head_size, generator=generator).to(dtype)
        found.append(t if heads_first else t.transpose(1, 2).reshape(batch, tokens, -1))
    return found[0], found[1], found[2]


def masks(batch: int, heads: int, q_tokens: int, kv_tokens: int) -> dict[str, Any]:
    """Masks of every kind and shape that the host hands on; each row keeps its first key."""
    generator = torch.Generator().manual_seed(5)

    def kept(*shape: int) -> torch.Tensor:
        mask = torch.rand(*shape, generator=generator) > 0.4
        mask[..., 0] = True
        return mask

    def added(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator)

    return {
        "none": None,
        "bool 2d": kept(q_tokens, kv_tokens),
        "bool 4d": kept(batch, heads, q_tokens, kv_tokens),
        "bool keys": kept(batch, 1, 1, kv_tokens),
        "float 2d": added(q_tokens, kv_tokens),
        "float 3d": added(batch, q_tokens, kv_tokens),
        "float 4d": added(batch, heads, q_tokens, kv_tokens),
        "float keys": added(1, 1, 1, kv_tokens),
        "float heads": added(1, heads, q_tokens, kv_tokens),
    }


def reference(args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
    """The host's ``attention_basic`` in float64.

    A boolean mask becomes an added one first: ``attention_basic`` takes it for a mask of keys,
    ``attention_pytorch``, which people run, for one of queries and keys.
    """
    from comfy.ldm.modules.attention import attention_basic

    names = ("q", "k", "v", "heads", "mask", "attn_precision")
    names += ("skip_reshape", "skip_output_reshape")
    given = dict(zip(names, args, strict=False)) | kwargs
    given = {k: v for k, v in given.items() if k not in ("transformer_options", "attn_precision")}
    heads = given["heads"]
    q, k = given["q"], given["k"]
    mask = given.pop("mask", None)
    if mask is not None:
        if mask.dtype == torch.bool:
            mask = torch.zeros(mask.shape, device=mask.device).masked_fill_(~mask, -math.inf)
        while mask.ndim < 4:
            mask = mask.unsqueeze(0 if mask.ndim == 2 else 1)
        tokens = 2 if given.get("skip_reshape") else 1
        mask = mask.expand(q.shape[0], heads, q.shape[tokens], k.shape[tokens]).double()
    for name in ("q", "k", "v"):
        given[name] = given[name].double()
    if given.get("scale", 0) is None:
        given.pop("scale")
    return attention_basic(**given, mask=mask)


def error(out: torch.Tensor, exact: torch.Tensor) -> float:
    """Relative error (L2)."""
    assert out.shape == exact.shape
    return float((out.double() - exact).norm() / exact.norm())


def refuse(*args: Any, **kwargs: Any) -> torch.Tensor:
    """A host's function that must not be called."""
    raise AssertionError("the host's own function was called")

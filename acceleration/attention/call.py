"""One attention call as data: everything that a backend's limits are about."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

KNOWN = frozenset(
    {
        *("q", "k", "v", "heads", "mask", "attn_precision", "skip_reshape", "skip_output_reshape"),
        *("enable_gqa", "scale", "low_precision_attention", "is_causal"),
        *("transformer_options", "_inside_attn_wrapper"),
    }
)
"""Keywords that ComfyUI 0.16.3 to 0.30.0 and other packs give to an attention function. A call with
another one means something that is not known here, so it goes to the host's own function."""


class Arguments(NamedTuple):
    """The tensors and numbers of a call, wherever its caller put them."""

    q: torch.Tensor
    k: torch.Tensor
    v: torch.Tensor
    heads: int
    mask: torch.Tensor | None
    scale: float | None
    causal: bool
    grouped: bool
    heads_first: bool
    """Whether the inputs are ``[B, H, L, D]``; else ``[B, L, H·D]`` (``skip_reshape``)."""
    heads_first_out: bool
    """The same for the output (``skip_output_reshape``)."""
    full_precision: bool
    """The model asked for a kernel that does not quantize (``low_precision_attention=False``)."""

    @classmethod
    def of(cls, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Arguments:
        """Read the host's convention ``(q, k, v, heads, mask, attn_precision, …)``."""
        get = kwargs.get
        count = len(args)
        if count >= 4:
            q, k, v, heads = args[:4]
        elif count == 3:
            (q, k, v), heads = args, kwargs["heads"]
        else:
            q, k, v, heads = kwargs["q"], kwargs["k"], kwargs["v"], kwargs["heads"]
        return cls(
            q,
            k,
            v,
            heads,
            args[4] if count > 4 else get("mask"),
            get("scale"),
            bool(get("is_causal")),
            bool(get("enable_gqa")),
            bool(args[6] if count > 6 else get("skip_reshape")),
            bool(args[7] if count > 7 else get("skip_output_reshape")),
            get("low_precision_attention") is False,
        )

    def signature(self, kwargs: dict[str, Any]) -> tuple[Any, ...]:
        """What two calls have in common that every backend treats alike."""
        q, k, v, heads, mask, scale, *flags = self
        return (
            *(q.shape, k.shape, v.shape, q.dtype, k.dtype, v.dtype, heads),
            None if mask is None else (mask.shape, mask.dtype),
            scale,
            *flags,
            None if kwargs.keys() <= KNOWN else frozenset(kwargs),
        )


@dataclass(frozen=True)
class CallShape:
    """Sizes and kinds of one call."""

    dtype: torch.dtype
    batch: int
    heads: int
    kv_heads: int
    q_tokens: int
    kv_tokens: int
    head_size: int
    value_size: int
    mask: str
    """``"none"``, ``"bool"`` (true is kept) or ``"float"`` (added to the scores)."""
    causal: bool = False
    scaled: bool = False
    """Whether the call brings a scale of its own."""
    full_precision: bool = False

    @property
    def grouped(self) -> bool:
        """Whether several query heads share a key and value head."""
        return self.kv_heads != self.heads


def shape_of(a: Arguments, kwargs: dict[str, Any]) -> tuple[CallShape | None, str]:
    """The call's sizes, or None and why no backend of ours can take it.

    The layouts are those of the host's ``attention_pytorch``: ``[B, H, L, D]`` or ``[B, L, H·D]``,
    masks ``[Lq, Lk]``, ``[B, Lq, Lk]`` or ``[B, H, Lq, Lk]`` whose sizes may be 1.
    """
    unknown = kwargs.keys() - KNOWN
    if unknown:
        return None, f"the call has the unknown argument {min(unknown)!r}"
    want = 4 if a.heads_first else 3
    # SD3 hands on values as [B, L, H, D] beside [B, L, H·D]; the host reshapes either.
    if a.q.ndim != want or any(t.ndim not in (want, 4) for t in (a.k, a.v)):
        return None, f"{max(t.ndim for t in (a.q, a.k, a.v))}-D layout, where {want}-D is expected"
    if not (a.q.dtype == a.k.dtype == a.v.dtype):
        return None, "query, key and value have different dtypes"
    if not (a.q.shape[0] == a.k.shape[0] == a.v.shape[0]):
        return None, "query, key and value have different batch sizes"
    sizes = _sizes(a)
    if sizes is None:
        return None, "the widths of query, key and value do not fit the number of heads"
    heads, kv_heads, q_tokens, kv_tokens, head_size, value_size = sizes
    kind = "none"
    if a.mask is not None:
        kind = "bool" if a.mask.dtype == torch.bool else "float"
        full = (a.q.shape[0], heads, q_tokens, kv_tokens)
        expanded = mask_4d(a.mask)
        if expanded.ndim != 4 or any(
            m not in (1, f) for m, f in zip(expanded.shape, full, strict=True)
        ):
            return None, f"a mask of shape {tuple(a.mask.shape)} does not fit {full}"
        if a.causal:
            return None, "a mask and causal attention at once"
    call = CallShape(
        *(a.q.dtype, a.q.shape[0], heads, kv_heads, q_tokens, kv_tokens, head_size, value_size),
        *(kind, a.causal, a.scale is not None, a.full_precision),
    )
    return call, ""


def _sizes(a: Arguments) -> tuple[int, int, int, int, int, int] | None:
    if a.heads_first:
        heads, kv_heads = a.q.shape[1], a.k.shape[1]
        head_size, value_size = a.q.shape[3], a.v.shape[3]
        fits = heads == a.heads and a.k.shape[3] == head_size and a.v.shape[1] == kv_heads
        tokens = a.q.shape[2], a.k.shape[2], a.v.shape[2]
    else:
        width, k_width, v_width = (math.prod(t.shape[2:]) for t in (a.q, a.k, a.v))
        heads, head_size = a.heads, width // a.heads
        kv_heads = k_width // max(head_size, 1) if a.grouped else heads
        value_size = v_width // max(kv_heads, 1)
        fits = (
            width == heads * head_size
            and k_width == kv_heads * head_size
            and v_width == kv_heads * value_size
        )
        tokens = a.q.shape[1], a.k.shape[1], a.v.shape[1]
    grouping = kv_heads == heads or (a.grouped and kv_heads > 0 and heads % kv_heads == 0)
    if not (fits and grouping and head_size and tokens[1] == tokens[2]):
        return None
    return heads, kv_heads, tokens[0], tokens[1], head_size, value_size


def mask_4d(mask: torch.Tensor) -> torch.Tensor:
    """A mask with the batch and heads dimensions that the host adds, ``[B, H, Lq, Lk]`` or 1s."""
    if mask.ndim == 2:
        mask = mask.unsqueeze(0)
    return mask.unsqueeze(1) if mask.ndim == 3 else mask

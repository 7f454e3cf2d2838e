"""xformers, ``xformers.ops.memory_efficient_attention``.

Signature (``xformers/ops/fmha/__init__.py``, 0.0.35): ``memory_efficient_attention(query, key,
value, attn_bias=None, p=0.0, scale=None, *, op=None)`` on ``[B, L, H, D]``. Limits, same folder:
float32 and half precision, a bias of the dtype of the queries that is expanded to ``[B, H, Lq,
Lk]`` and whose rows begin at multiples of 8 elements; the last dimension must be adjacent. Releases
0.0.21 to 0.0.26 fail beyond 65535 heads x batch (the host's note); the call itself finds that out.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import Backend, Kernel
from ..limits import FLOATS, Limits

ALIGNMENT = 8


def bias_of(mask: Tensor, q: Tensor, kv_tokens: int) -> Tensor:
    """A mask as xformers wants it, ``[B, H, Lq, Lk]`` in aligned memory.

    Parameters
    ----------
    mask
        ``[B or 1, H or 1, Lq or 1, Lk or 1]``, bool (true is kept) or float.
    q
        Queries ``[B, Lq, H, D]``.
    """
    rows, columns = q.shape[1], kv_tokens
    room = q.new_empty((mask.shape[0], mask.shape[1], rows, -(-columns // ALIGNMENT) * ALIGNMENT))[
        ..., :columns
    ]
    if mask.dtype == torch.bool:
        room.zero_().masked_fill_(~mask, float("-inf"))
    else:
        room.copy_(mask)
    return room.expand(q.shape[0], q.shape[2], rows, columns)


def _load() -> Kernel:
    from xformers.ops import LowerTriangularMask, memory_efficient_attention

    def efficient(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, causal: bool
    ) -> Tensor:
        bias = LowerTriangularMask() if causal else None
        if mask is not None:
            bias = bias_of(mask, q, k.shape[1])
        q, k, v = (t if t.stride(3) == 1 else t.contiguous() for t in (q, k, v))
        return memory_efficient_attention(q, k, v, attn_bias=bias, scale=scale)

    return efficient


BACKENDS = (
    Backend(
        name="xformers",
        title="xformers",
        limits=Limits(devices=frozenset({"cuda", "rocm"}), capability=(6, 0), dtypes=FLOATS),
        load=_load,
        module="xformers",
        distribution="xformers",
        install="python -m pip install xformers",
        heads_first=False,
        experimental=True,
        order=35,
    ),
)

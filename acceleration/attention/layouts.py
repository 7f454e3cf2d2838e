"""Between the layouts of the host and those of the kernels."""

from __future__ import annotations

import torch

from .backend import Backend, Kernel
from .call import Arguments, CallShape, mask_4d


def compute(
    backend: Backend, kernel: Kernel, grouped: bool, a: Arguments, call: CallShape
) -> torch.Tensor:
    """Run a kernel on a call and return what the host's attention function would.

    Parameters
    ----------
    grouped
        Whether the kernel takes fewer key than query heads; if not, they are repeated for it.

    Returns
    -------
    torch.Tensor
        ``[B, Lq, H·D]``, or ``[B, H, Lq, D]`` for ``skip_output_reshape``.
    """
    q, k, v = a.q, a.k, a.v
    heads_dim = 1
    if not a.heads_first:
        batch = call.batch
        q = q.reshape(batch, -1, call.heads, call.head_size)
        k = k.reshape(batch, -1, call.kv_heads, call.head_size)
        v = v.reshape(batch, -1, call.kv_heads, call.value_size)
        heads_dim = 2
    if call.kv_heads != call.heads and not grouped:
        repeats = call.heads // call.kv_heads
        k = k.repeat_interleave(repeats, dim=heads_dim)
        v = v.repeat_interleave(repeats, dim=heads_dim)
    if backend.heads_first != a.heads_first:
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)
    mask = None if a.mask is None else mask_4d(a.mask)
    out = kernel(q, k, v, mask, a.scale, a.causal)
    if a.heads_first_out:
        return out if backend.heads_first else out.transpose(1, 2)
    if backend.heads_first:
        out = out.transpose(1, 2)
    return out.reshape(call.batch, -1, call.heads * call.value_size)

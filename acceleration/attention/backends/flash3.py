"""FlashAttention 3 for Hopper, package ``flash_attn_interface``.

Signature (``hopper/flash_attn_interface.py``): ``flash_attn_func(q, k, v, softmax_scale=None,
causal=False, …)`` on ``[B, L, H, D]``, no ``dropout_p``; early releases return ``(out, lse)``.
Limits, same source: compute capability 9.0, float16 and bfloat16, head sizes up to 256, no mask.
"""

from __future__ import annotations

import torch

from ..backend import Backend, Kernel
from ..limits import HALF, Limits


def _load() -> Kernel:
    from flash_attn_interface import flash_attn_func

    def flash(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float | None,
        causal: bool,
    ) -> torch.Tensor:
        out = flash_attn_func(q, k, v, softmax_scale=scale, causal=causal)
        return out[0] if isinstance(out, tuple) else out

    return flash


BACKENDS = (
    Backend(
        name="flash3",
        title="FlashAttention 3",
        limits=Limits(
            devices=frozenset({"cuda"}),
            capability=(9, 0),
            capability_end=(10, 0),
            dtypes=HALF,
            head_size=256,
            masks=frozenset({"none"}),
            grouped=True,
        ),
        load=_load,
        module="flash_attn_interface",
        distribution="flash_attn_3",
        install="python setup.py install (in the folder hopper of the flash-attention sources)",
        heads_first=False,
        falls_to=("flash", "sdpa"),
        order=11,
    ),
)

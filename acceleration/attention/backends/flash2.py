"""FlashAttention 2, package ``flash_attn``.

Signature (its README and ``flash_attn_interface.py``): ``flash_attn_func(q, k, v, dropout_p=0.0,
softmax_scale=None, causal=False, …)`` on ``[B, L, H, D]``, fewer key heads allowed. Limits, same
source: Ampere or newer, float16 and bfloat16, head sizes up to 256, no mask. Causal masks are
aligned to the lower right since 2.1, to the upper left in torch, so only square ones are taken.
"""

from __future__ import annotations

import torch

from ..backend import Backend, Kernel
from ..limits import HALF, Limits


def _load() -> Kernel:
    from flash_attn import flash_attn_func

    def flash(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float | None,
        causal: bool,
    ) -> torch.Tensor:
        return flash_attn_func(q, k, v, dropout_p=0.0, softmax_scale=scale, causal=causal)

    return flash


BACKENDS = (
    Backend(
        name="flash",
        title="FlashAttention 2",
        limits=Limits(
            devices=frozenset({"cuda", "rocm"}),
            capability=(8, 0),
            dtypes=HALF,
            head_size=256,
            masks=frozenset({"none"}),
            grouped=True,
        ),
        load=_load,
        module="flash_attn",
        distribution="flash-attn",
        install="python -m pip install flash-attn --no-build-isolation",
        heads_first=False,
        order=10,
    ),
)

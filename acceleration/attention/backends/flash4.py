"""FlashAttention 4, module ``flash_attn.cute``.

Signature (``flash_attn/cute/interface.py``): ``flash_attn_func(q, k, v, …, softmax_scale=None,
causal=False, …)`` on ``[B, L, H, D]``; other arguments stand between and change from release to
release, so all go by keyword. Releases differ in returning the output or ``(out, lse)``. Limits
(header of that file): Hopper and Blackwell, float16 and bfloat16, head sizes up to 128.
"""

from __future__ import annotations

import torch

from ..backend import Backend, Kernel
from ..limits import HALF, Limits


def _load() -> Kernel:
    from flash_attn.cute import flash_attn_func

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
        name="flash4",
        title="FlashAttention 4",
        limits=Limits(
            devices=frozenset({"cuda"}),
            capability=(9, 0),
            dtypes=HALF,
            head_size=128,
            head_multiple=8,
            masks=frozenset({"none"}),
            grouped=True,
        ),
        load=_load,
        module="flash_attn.cute",
        distribution="flash-attn-4",
        install="python -m pip install flash-attn-4",
        heads_first=False,
        falls_to=("flash3", "flash", "sdpa"),
        order=12,
    ),
)

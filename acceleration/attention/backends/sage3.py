"""SageAttention 3 for Blackwell, package ``sageattn3``.

Signature (``sageattention3_blackwell/sageattn3/api.py``): ``sageattn3_blackwell(q, k, v,
attn_mask=None, is_causal=False, per_block_mean=True, **kwargs)`` on contiguous ``[B, H, L, D]``.
Limits, same file: it ignores a mask and a scale, quantizes to 4 bits, hands head sizes from 256 on
to SDPA, and subtracts the mean of the keys in the caller's tensor, so it gets a copy. The host's
own ``attention3_sage`` takes it only above 1024 tokens. Its authors advise exact attention in the
first and last steps.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..backend import Backend, Kernel
from ..limits import HALF, Limits


def _load() -> Kernel:
    from sageattn3 import sageattn3_blackwell

    def sage3(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, causal: bool
    ) -> Tensor:
        copy = k.clone(memory_format=torch.contiguous_format)
        return sageattn3_blackwell(q.contiguous(), copy, v.contiguous(), is_causal=causal)

    return sage3


BACKENDS = (
    Backend(
        name="sage3",
        title="SageAttention 3 (4 bits, Blackwell)",
        limits=Limits(
            devices=frozenset({"cuda"}),
            capability=(10, 0),
            dtypes=HALF,
            head_sizes=frozenset({64, 128}),
            masks=frozenset({"none"}),
            scale=False,
            least_q_tokens=1025,
            quantizes=True,
        ),
        load=_load,
        module="sageattn3",
        distribution="sageattn3",
        install="python setup.py install (in the folder sageattention3_blackwell of the "
        "SageAttention sources)",
        # SGLang: without SageAttention 3, SDPA.
        tolerance=0.4,
        experimental=True,
        order=30,
    ),
)

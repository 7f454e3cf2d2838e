"""FlashAttention 2, 3 (Hopper) and 4, three packages with one function.

Signatures (``flash_attn_interface.py``, ``hopper/flash_attn_interface.py`` and
``flash_attn/cute/interface.py`` of its sources): ``flash_attn_func(q, k, v, …)`` on
``[B, L, H, D]`` with ``softmax_scale`` and ``causal``; what stands between differs by version and
release, so these go by keyword. Some releases return ``(out, lse)``. Limits, same files: float16
and bfloat16, no mask, fewer key heads allowed; head sizes up to 256, of version 4 up to 128. Causal
masks are aligned to the lower right, to the upper left in torch, so only square ones are taken.
"""

from __future__ import annotations

import importlib
from typing import Any

from torch import Tensor

from ..backend import Backend, Kernel
from ..limits import HALF, Limits


def _kernel(module: str) -> Kernel:
    function = importlib.import_module(module).flash_attn_func

    def flash(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, causal: bool
    ) -> Tensor:
        out: Any = function(q, k, v, softmax_scale=scale, causal=causal)
        return out[0] if isinstance(out, tuple) else out

    return flash


def _backend(number: int, name: str, module: str, limits: dict[str, Any], **other: Any) -> Backend:
    return Backend(
        name=name,
        title=f"FlashAttention {number}",
        limits=Limits(dtypes=HALF, masks=frozenset({"none"}), grouped=True, **limits),
        load=lambda: _kernel(module),
        module=module,
        heads_first=False,
        order=8 + number,
        **other,
    )


_CUDA = frozenset({"cuda"})

BACKENDS = (
    _backend(
        2,
        "flash",
        "flash_attn",
        {"devices": _CUDA | {"rocm"}, "capability": (8, 0), "head_size": 256},
        distribution="flash-attn",
        install="python -m pip install flash-attn --no-build-isolation",
    ),
    _backend(
        3,
        "flash3",
        "flash_attn_interface",
        {"devices": _CUDA, "capability": (9, 0), "capability_end": (10, 0), "head_size": 256},
        distribution="flash_attn_3",
        install="python setup.py install (in the folder hopper of the flash-attention sources)",
        falls_to=("flash", "sdpa"),
    ),
    _backend(
        4,
        "flash4",
        "flash_attn.cute",
        {"devices": _CUDA, "capability": (9, 0), "head_size": 128, "head_multiple": 8},
        distribution="flash-attn-4",
        install="python -m pip install flash-attn-4",
        falls_to=("flash3", "flash", "sdpa"),
        experimental=True,
    ),
)

"""SageAttention 1, 2 and 2++, package ``sageattention``.

Signatures (``sageattention/core.py``): 1.0.6 has ``sageattn(q, k, v, tensor_layout="HND",
is_causal=False, sm_scale=None, smooth_k=True, **kwargs)``; 2.x has ``sageattn(…, sm_scale=None,
return_lse=False, **kwargs)``, which chooses by compute capability, and the kernels behind it by
name. Some builds add ``attn_mask``.

Limits (same file): CUDA, float16 and bfloat16 (1.0.6 takes float32 too, in float16 inside); head
sizes 64, 96 and 128 in 1.0.6, up to 128 in 2.x, which pads. Keys are made zero-mean over the tokens
before they are quantized (``smooth_k``); 1.0.6 does that *in the caller's tensor*, so it is done
here, on a copy. Element offsets are 32-bit (its issue 386), so tensors whose rows lie far apart are
made contiguous first.

Of its kernels two are offered, because two measured differently (``benchmarks/attention.py``, on a
Hopper GPU): what the package chooses, error 0.039, and 8-bit products of queries and keys alone,
error 0.011 and slower. The Hopper kernel by name is the package's own choice there; the Triton one
is as fast as the CUDA one with error 0.013; those for compute capability 8.9 have not been measured
and are the package's choice there, too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

from torch import Tensor

from ..backend import Backend, Kernel
from ..limits import HALF, Limits

FIRST_VERSION_HEADS = (64, 96, 128)
MOST_OFFSET = 2**31


def near(t: Tensor) -> Tensor:
    """A tensor ``[B, H, L, D]`` whose rows a 32-bit offset reaches, with adjacent last elements."""
    if t.stride(3) != 1 or t.stride(2) * t.shape[2] + t.shape[3] >= MOST_OFFSET:
        return t.contiguous()
    return t


def _adapt(function: Callable[..., Any], **fixed: Any) -> Kernel:
    parameters = inspect.signature(function).parameters
    # 2.x also has smooth_k in the kernels by name, but hands the mean on instead of subtracting it
    # in place, and knows it by return_lse.
    in_place = "smooth_k" in parameters and "return_lse" not in parameters

    def sage(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, causal: bool
    ) -> Tensor:
        extra = dict(fixed)
        if in_place:
            if q.shape[3] not in FIRST_VERSION_HEADS:
                raise ValueError(
                    f"head size {q.shape[3]} not supported by this version (only 64, 96, 128)"
                )
            k = k - k.mean(dim=2, keepdim=True)
            extra["smooth_k"] = False
        return function(
            *(near(q), near(k), near(v)),
            tensor_layout="HND",
            is_causal=causal,
            sm_scale=scale,
            **extra,
        )

    return sage


def _kernel(name: str, **fixed: Any) -> Kernel:
    import sageattention

    function = getattr(sageattention, name, None)
    if function is None:
        raise ImportError(f"this version of sageattention has no {name}; 2.0 and newer do")
    return _adapt(function, **fixed)


def _backend(name: str, title: str, order: int, **other: Any) -> Backend:
    return Backend(
        name=name,
        title=title,
        limits=Limits(
            devices=frozenset({"cuda"}),
            capability=(8, 0),
            dtypes=HALF,
            head_size=128,
            masks=frozenset({"none"}),
            grouped=True,
            quantizes=True,
        ),
        module="sageattention",
        distribution="sageattention",
        install="python -m pip install sageattention",
        # SGLang: without SageAttention, FlashAttention.
        falls_to=("flash", "sdpa"),
        # 1.0.6's own kernels give 0.013 on normal numbers; this tells coarse from broken.
        tolerance=0.1,
        order=order,
        **other,
    )


BACKENDS = (
    _backend(
        "sage",
        "SageAttention, variant by GPU",
        20,
        load=lambda: _kernel("sageattn"),
        formerly=("sage_fp8", "sage_fp8_fast", "sage_fp8_hopper"),
    ),
    _backend(
        "sage_fp16",
        "SageAttention 2, int8 QK, fp16 PV (CUDA)",
        22,
        load=lambda: _kernel("sageattn_qk_int8_pv_fp16_cuda", pv_accum_dtype="fp32"),
        formerly=("sage_fp16_triton",),
    ),
)

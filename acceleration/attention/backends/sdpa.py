"""PyTorch's scaled_dot_product_attention, free to choose or one of its kernels.

Limits: the checks in PyTorch's ``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`` and, for
the CPU, ``…/transformers/sdp_utils_cpp.cpp``, as of 2.7 to 2.11.

A chosen kernel is called as its operator (``torch._scaled_dot_product_…``), with the arguments that
``scaled_dot_product_attention`` (``…/transformers/attention.cpp``) would give it. The way by
``torch.nn.attention.sdpa_kernel`` turns switches that belong to the whole process: what another
thread computes meanwhile finds its kernels switched off.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.backends import cuda as checks
from torch.nn.functional import pad, scaled_dot_product_attention

from ..backend import Backend, Kernel
from ..limits import FLOATS, HALF, Limits

ALIGNMENT = 8
"""Elements to which the flash kernel's head size and the rows of the memory-efficient kernel's
masks are filled up."""

FINITE_HIDDEN = -65504.0
"""What hides a key from cuDNN before 9.10, which gives no numbers for a row of nothing but
``-inf``. Later versions want ``-inf``: to them this is a number like others (PyTorch's pull request
177868)."""


def _free(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, causal: bool
) -> Tensor:
    grouped = k.shape[1] != q.shape[1]
    if grouped and mask is not None and q.device.type != "cpu":
        # Of the fast kernels hardly one takes both, and the last resort needs Lq x Lk memory.
        repeats = q.shape[1] // k.shape[1]
        k, v = (t.repeat_interleave(repeats, dim=1) for t in (k, v))
        grouped = False
    return scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped
    )


def _flash(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, causal: bool
) -> Tensor:
    q, k, v = _adjacent(q, k, v)
    if _is_cpu(q):
        out, _ = torch._scaled_dot_product_flash_attention_for_cpu(
            q, k, v, 0.0, causal, attn_mask=_added(mask, q), scale=scale
        )
        return out
    if mask is not None:
        raise RuntimeError("PyTorch's flash kernel takes no mask on this device")
    _ask_pytorch("flash", q, k, v, None, causal)
    size = q.shape[3]
    # Zeros behind a head change no product, but the scale is that of the real size.
    scale = size**-0.5 if scale is None else scale
    missing = -size % ALIGNMENT
    if missing:
        q, k, v = (pad(t, (0, missing)) for t in (q, k, v))
    out = torch._scaled_dot_product_flash_attention(q, k, v, 0.0, causal, False, scale=scale)[0]
    return out[..., :size] if missing else out


def _biased(name: str, operator: Callable[..., Any], bias_of: Callable[..., Tensor]) -> Kernel:
    """One of the two kernels to whose operators a mask is a bias that is added to the scores."""

    def biased(
        q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, causal: bool
    ) -> Tensor:
        q, k, v = _adjacent(q, k, v)
        _ask_pytorch(name, q, k, v, mask, causal)
        bias = None if mask is None else bias_of(mask, q, k.shape[2])
        kept = _backward_follows(q, k, v)
        out: Tensor = operator(q, k, v, bias, kept, 0.0, causal, scale=scale)[0]
        return out

    return biased


def _efficient_bias(mask: Tensor, q: Tensor, kv_tokens: int) -> Tensor:
    return _aligned(_bias(mask, q, kv_tokens), q, kv_tokens)


def _cudnn_bias(mask: Tensor, q: Tensor, kv_tokens: int) -> Tensor:
    return _bias(mask, q, kv_tokens, _hidden_from_cudnn())


def _math(
    q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, causal: bool
) -> Tensor:
    grouped = k.shape[1] != q.shape[1]
    if q.device.type == "mps":
        # All that there is on Apple's GPUs, behind an operator that differs by version.
        return scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped
        )
    out: Tensor = torch._scaled_dot_product_attention_math(
        q, k, v, _added(mask, q), 0.0, causal, None, scale=scale, enable_gqa=grouped
    )[0]
    return out


# ------------------------------------------------------------------ what the operators want


def _is_cpu(tensor: Tensor) -> bool:
    return tensor.device.type == "cpu"


def _adjacent(*tensors: Tensor) -> tuple[Tensor, ...]:
    """Tensors whose last elements lie side by side; the kernel for the CPU does not look."""
    return tuple(t if t.stride(-1) == 1 else t.contiguous() for t in tensors)


def _added(mask: Tensor | None, q: Tensor, hidden: float = -math.inf) -> Tensor | None:
    """A mask to be added to the scores: the operators would take true and false for 1 and 0."""
    if mask is None or mask.dtype != torch.bool:
        return mask
    return torch.zeros_like(mask, dtype=q.dtype).masked_fill_(~mask, hidden)


def _bias(mask: Tensor, q: Tensor, kv_tokens: int, hidden: float = -math.inf) -> Tensor:
    """A mask in the dtype of the queries, ``[B or 1, H or 1, Lq or 1, Lk]`` with adjacent keys.

    cuDNN reads whatever bytes it is given in the dtype of the queries.
    """
    added = _added(mask, q, hidden)
    assert added is not None
    added = added.to(q.dtype).expand(-1, -1, -1, kv_tokens)
    return added if added.stride(3) == 1 else added.contiguous()


def _aligned(bias: Tensor, q: Tensor, kv_tokens: int) -> Tensor:
    """A bias whose rows begin at multiples of 8 elements, expanded to ``[B, H, Lq, Lk]``."""
    if any(step % ALIGNMENT for step in bias.stride()[:3]):
        bias = pad(bias, (0, -kv_tokens % ALIGNMENT)).contiguous()[..., :kv_tokens]
    return bias.expand(q.shape[0], q.shape[1], q.shape[2], kv_tokens)


@cache
def _hidden_from_cudnn() -> float:
    return -math.inf if (torch.backends.cudnn.version() or 0) >= 91000 else FINITE_HIDDEN


def _backward_follows(*tensors: Tensor) -> bool:
    """Whether the kernel must keep what its gradient needs."""
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _ask_pytorch(
    name: str,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    mask: Tensor | None,
    causal: bool,
) -> None:
    """Raise RuntimeError where PyTorch says that one of its kernels cannot take a call.

    It knows what depends on the versions of cuDNN and of the device. Its answer is no, too, where
    somebody has switched the kernel off, perhaps another thread just now: then it says nothing
    about the call, and the operator's own checks must do. So a no counts twice or not at all.
    """
    enabled, can_use = _CHECKS[name]
    asked = checks.SDPAParams(q, k, v, mask, 0.0, causal, k.shape[1] != q.shape[1])
    for _ in range(2):
        if not enabled() or can_use(asked):
            return
    raise RuntimeError(f"PyTorch's own checks refuse this call for its {name} kernel")


_CHECKS: dict[str, tuple[Callable[[], bool], Callable[..., bool]]] = {
    "flash": (checks.flash_sdp_enabled, checks.can_use_flash_attention),
    "mem_efficient": (checks.mem_efficient_sdp_enabled, checks.can_use_efficient_attention),
    "cudnn": (checks.cudnn_sdp_enabled, checks.can_use_cudnn_attention),
}


_GPU = frozenset({"cuda", "rocm"})

BACKENDS = (
    Backend(
        name="sdpa",
        title="PyTorch SDPA, its own choice of kernel",
        limits=Limits(grouped=True, value_size_differs=True, causal_rectangle=True),
        load=lambda: _free,
        falls_to=(),
        order=40,
    ),
    Backend(
        name="sdpa_flash",
        title="PyTorch SDPA, flash kernel",
        limits=Limits(
            devices=_GPU,
            capability=(8, 0),
            dtypes=HALF,
            head_size=256,
            masks=frozenset({"none"}),
            grouped=True,
        ),
        limits_elsewhere={"cpu": Limits(dtypes=FLOATS | {torch.float64})},
        load=lambda: _flash,
        order=41,
    ),
    Backend(
        name="sdpa_cudnn",
        title="PyTorch SDPA, cuDNN kernel",
        limits=Limits(
            devices=frozenset({"cuda"}),
            capability=(8, 0),
            dtypes=HALF,
            head_size=256,
            head_multiple=8,
            grouped=True,
            least_kv_tokens=2,
        ),
        load=lambda: _biased("cudnn", torch._scaled_dot_product_cudnn_attention, _cudnn_bias),
        order=42,
    ),
    Backend(
        name="sdpa_efficient",
        title="PyTorch SDPA, memory-efficient kernel",
        limits=Limits(devices=_GPU, capability=(5, 0), dtypes=FLOATS, value_size_differs=True),
        load=lambda: _biased(
            "mem_efficient", torch._scaled_dot_product_efficient_attention, _efficient_bias
        ),
        order=43,
    ),
    Backend(
        name="sdpa_math",
        title="PyTorch SDPA, plain mathematics (slow, needs queries x keys memory)",
        limits=Limits(grouped=True, value_size_differs=True, causal_rectangle=True),
        load=lambda: _math,
        races=False,
        order=44,
    ),
)

"""PyTorch's scaled_dot_product_attention, free to choose or pinned to one of its kernels.

Limits: the checks in PyTorch's ``aten/src/ATen/native/transformers/cuda/sdp_utils.cpp`` and, for
the CPU, ``…/transformers/sdp_utils_cpp.cpp``, as of 2.7 to 2.11.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

import torch
from torch.backends import cuda as switches
from torch.nn.functional import scaled_dot_product_attention

from ..backend import Backend, Kernel
from ..limits import FLOATS, HALF, Limits

_KERNELS: dict[str, tuple[Callable[[], bool], Callable[[bool], None]]] = {
    "flash": (switches.flash_sdp_enabled, switches.enable_flash_sdp),
    "efficient": (switches.mem_efficient_sdp_enabled, switches.enable_mem_efficient_sdp),
    "math": (switches.math_sdp_enabled, switches.enable_math_sdp),
    "cudnn": (switches.cudnn_sdp_enabled, switches.enable_cudnn_sdp),
}
# PyTorch's switches are the process's, not the thread's: with several GPUs two threads pin at once.
_lock = threading.Lock()


def _free(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    mask: torch.Tensor | None,
    scale: float | None,
    causal: bool,
) -> torch.Tensor:
    grouped = k.shape[1] != q.shape[1]
    if grouped and mask is not None and q.device.type != "cpu":
        # Of the fast kernels hardly one takes both, and the last resort needs Lq x Lk memory.
        repeats = q.shape[1] // k.shape[1]
        k, v = (t.repeat_interleave(repeats, dim=1) for t in (k, v))
        grouped = False
    return scaled_dot_product_attention(
        q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped
    )


def _pinned(wanted: str) -> Kernel:
    """SDPA with one kernel allowed; it raises RuntimeError where that one cannot serve.

    ``torch.nn.attention.sdpa_kernel`` does the same and takes 16 µs for it (measured), which is
    most of what a call may cost here.
    """

    def pinned(
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float | None,
        causal: bool,
    ) -> torch.Tensor:
        grouped = k.shape[1] != q.shape[1]
        with _lock:
            before = {name: enabled() for name, (enabled, _) in _KERNELS.items()}
            try:
                for name, (_, enable) in _KERNELS.items():
                    if before[name] != (name == wanted):
                        enable(name == wanted)
                return scaled_dot_product_attention(
                    q, k, v, attn_mask=mask, is_causal=causal, scale=scale, enable_gqa=grouped
                )
            finally:
                for name, (_, enable) in _KERNELS.items():
                    if before[name] != (name == wanted):
                        enable(before[name])

    return pinned


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
        load=lambda: _pinned("flash"),
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
        ),
        load=lambda: _pinned("cudnn"),
        order=42,
    ),
    Backend(
        name="sdpa_efficient",
        title="PyTorch SDPA, memory-efficient kernel",
        limits=Limits(devices=_GPU, capability=(5, 0), dtypes=FLOATS, value_size_differs=True),
        load=lambda: _pinned("efficient"),
        order=43,
    ),
    Backend(
        name="sdpa_math",
        title="PyTorch SDPA, plain mathematics (slow, needs queries x keys memory)",
        limits=Limits(grouped=True, value_size_differs=True, causal_rectangle=True),
        load=lambda: _pinned("math"),
        races=False,
        order=44,
    ),
)

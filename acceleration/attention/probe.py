"""Whether a backend works on this machine, tried on small real calls before it is trusted."""

from __future__ import annotations

import threading
from dataclasses import dataclass

import torch

from ..lack_of_memory import is_out_of_memory
from .backend import Backend, Kernel, is_installed
from .device import facts_of
from .registry import missing

HEADS, HEAD_SIZE = 2, 64
ALIGNED_TOKENS = 128
RAGGED_TOKENS = 77
"""No multiple of any kernel's block of keys."""
LONG_TOKENS = 1152
"""For backends that refuse short calls."""

TOLERANCE = {
    torch.float64: 1e-8,
    # Room for TF32, which a user may have allowed.
    torch.float32: 2e-3,
    torch.float16: 5e-3,
    torch.bfloat16: 3e-2,
}
"""Relative error (L2) of an exact kernel on normal numbers, several times its rounding."""


@dataclass(frozen=True)
class Finding:
    """What came out of trying one backend on one device with one dtype."""

    kernel: Kernel | None
    reason: str = ""
    """Why it cannot be used; empty when it can."""
    error: float | None = None
    """Relative error (L2) against attention in float64."""
    counts_padding: bool = False
    """It is right only where the number of keys fills its blocks: it counts the zeros behind the
    last key. SageAttention 1.0.6's Triton kernels do (measured: 0.29 on 77 keys, 0.013 on 128)."""


_findings: dict[tuple[str, torch.device, torch.dtype], Finding] = {}
_kernels: dict[str, Kernel] = {}
_lock = threading.Lock()


def forget() -> None:
    """Try everything anew, as after installing a package."""
    with _lock:
        _findings.clear()
        _kernels.clear()


def finding(backend: Backend, device: torch.device, dtype: torch.dtype) -> Finding:
    """The result of the probe, made at first use and kept while the process lives.

    It is a fact about packages and the machine, not about a model or a run. A lack of memory is
    none: it is raised, and the next call tries again.
    """
    key = (backend.name, device, dtype)
    with _lock:
        if key not in _findings:
            _findings[key] = _try(backend, device, dtype)
        return _findings[key]


def _try(backend: Backend, device: torch.device, dtype: torch.dtype) -> Finding:
    limits = backend.limits_on(facts_of(device))
    why_not = limits.why_not_device(facts_of(device))
    if why_not:
        return Finding(None, why_not)
    if backend.module and not is_installed(backend.module):
        return Finding(None, missing(backend))
    try:
        if backend.name not in _kernels:
            _kernels[backend.name] = backend.load()
        kernel = _kernels[backend.name]
        if limits.dtypes is not None and dtype not in limits.dtypes:
            # The call's own limits say so, with a better sentence.
            return Finding(kernel)
        tokens = LONG_TOKENS if limits.least_q_tokens > ALIGNED_TOKENS else ALIGNED_TOKENS
        error = relative_error(backend, kernel, device, dtype, tokens, tokens)
        ragged = relative_error(backend, kernel, device, dtype, tokens, RAGGED_TOKENS)
    except Exception as problem:
        if is_out_of_memory(problem):
            raise  # says something about this moment, not about the package
        # A wheel for another CUDA or torch version fails in every way there is.
        return Finding(None, f"does not work here ({type(problem).__name__}: {_first(problem)})")
    limit = backend.tolerance if backend.tolerance is not None else TOLERANCE.get(dtype, 3e-2)
    if not error <= limit:  # also when it is not a number
        return Finding(None, f"gives wrong results here (error {error:.2g}, at most {limit:g})")
    return Finding(kernel, "", error, counts_padding=not ragged <= limit)


def relative_error(
    backend: Backend,
    kernel: Kernel,
    device: torch.device,
    dtype: torch.dtype,
    q_tokens: int,
    kv_tokens: int,
    heads: int = HEADS,
    head_size: int = HEAD_SIZE,
) -> float:
    """Relative error (L2) of a kernel against attention in float64, on seeded normal numbers."""
    generator = torch.Generator().manual_seed(0)

    def normal(tokens: int) -> torch.Tensor:
        made = torch.randn(1, heads, tokens, head_size, generator=generator)
        return made.to(device, dtype)

    q, k, v = normal(q_tokens), normal(kv_tokens), normal(kv_tokens)
    scores = q.double().cpu() @ k.double().cpu().transpose(2, 3) * head_size**-0.5
    exact = scores.softmax(dim=-1) @ v.double().cpu()
    with torch.inference_mode():
        if backend.heads_first:
            out = kernel(q, k, v, None, None, False)
        else:
            q, k, v = (t.transpose(1, 2) for t in (q, k, v))
            out = kernel(q, k, v, None, None, False).transpose(1, 2)
        return float((out.double().cpu() - exact).norm() / exact.norm())


def _first(problem: Exception) -> str:
    """The first line of an error, short enough for a report."""
    lines = str(problem).strip().splitlines()
    return lines[0][:200] if lines else "no message"

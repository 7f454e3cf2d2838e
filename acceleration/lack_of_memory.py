"""Errors that say that memory ran out, however they say it, and whether somebody can help.

What a caching run remembers can be dropped and the evaluation computed again. Code deep inside an
evaluation, such as an attention kernel, asks ``can_be_freed`` before it makes do with something
slower for the rest of the run.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar

import torch

CUDA_OUT_OF_MEMORY = 2
"""``cudaErrorMemoryAllocation``, which errors that CUDA reports late carry as ``error_code``."""

WORDS = (
    # PyTorch on the CPU: "DefaultCPUAllocator: not enough memory", "… can't allocate memory".
    "defaultcpuallocator",
    # CUDA and ROCm reporting late, Apple's GPUs, Triton.
    "out of memory",
    # cuBLAS and cuDNN: CUBLAS_STATUS_ALLOC_FAILED, CUDNN_STATUS_ALLOC_FAILED.
    "status_alloc_failed",
)
"""What a RuntimeError says when it is about memory, in lower case."""


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that memory ran out, on a device or on the CPU."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    if not isinstance(error, RuntimeError):
        return False
    if getattr(error, "error_code", None) == CUDA_OUT_OF_MEMORY:
        return True
    said = str(error).lower()
    return any(words in said for words in WORDS)


_held: ContextVar[Callable[[], bool] | None] = ContextVar("held", default=None)


@contextmanager
def recovery(held: Callable[[], bool]) -> Iterator[None]:
    """What runs inside may let a lack of memory pass: the caller frees memory and runs it again.

    Parameters
    ----------
    held
        Whether there is something to free.
    """
    token = _held.set(held)
    try:
        yield
    finally:
        _held.reset(token)


def can_be_freed() -> bool:
    """Whether somebody above, in this thread, has memory to free and would run this again."""
    held = _held.get()
    return held is not None and held()

"""Compact storage of hidden states: bfloat16, or fp8 with a scale per token.

fp8 is e4m3 (three bits of mantissa): a value is off by at most 1/16 of itself, and values far
below the largest of their token by a thousandth of a scale. A token is the last dimension.
"""

from __future__ import annotations

import math
from functools import cache

import torch

from ..lack_of_memory import is_out_of_memory

FULL, BF16, FP8 = "full", "bf16", "fp8"
STORAGES = (FULL, BF16, FP8)
"""From exact and large to coarse and small."""

FP8_DTYPE = torch.float8_e4m3fn
FP8_MAX = torch.finfo(FP8_DTYPE).max

CHUNK = 1 << 22
"""Elements that are brought to float32 at once."""


@cache
def coarsest_on(device: torch.device) -> str:
    """The most compact storage that a device can write and read; not every one knows fp8.

    It does not change while a process lives.
    """
    for storage in reversed(STORAGES[1:]):
        try:
            unpack(pack(torch.ones(1, 2, device=device), storage), torch.float32)
        except (TypeError, RuntimeError) as problem:
            if is_out_of_memory(problem):
                raise  # says something about this moment, not about the device
            continue
        return storage
    return FULL


def shrinks(storage: str, tensor: torch.Tensor) -> bool:
    """Whether a storage takes less than the tensor itself does."""
    if storage == FULL or not tensor.is_floating_point() or tensor.ndim == 0:
        return False
    return packed_bytes(storage, tensor) < packed_bytes(FULL, tensor)


def packed_bytes(storage: str, tensor: torch.Tensor) -> int:
    """Bytes that ``pack`` makes of a tensor."""
    size = tensor.numel()
    if storage == BF16:
        return 2 * size
    if storage == FP8:
        return size + 4 * math.prod(tensor.shape[:-1])
    return tensor.element_size() * size


def pack(tensor: torch.Tensor, storage: str) -> tuple[torch.Tensor, ...]:
    """A tensor in a storage: ``(tensor,)``, or ``(codes [..., D], scales [..., 1])`` for fp8.

    With ``"full"`` it is the tensor itself, not a copy.
    """
    if storage == BF16:
        return (tensor.to(torch.bfloat16),)
    if storage == FP8:
        return _to_fp8(tensor)
    return (tensor,)


def unpack(parts: tuple[torch.Tensor, ...], dtype: torch.dtype) -> torch.Tensor:
    """What ``pack`` took, in its dtype, on the device of the parts."""
    if len(parts) == 1:
        return parts[0].to(dtype)
    codes, scales = parts
    values = codes.to(dtype)  # exact: every fp8 value is one of bf16, fp16 and fp32
    return torch.mul(values, scales, out=values)


def _to_fp8(tensor: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    tokens = tensor.reshape(-1, tensor.shape[-1])
    codes = torch.empty_like(tokens, dtype=FP8_DTYPE)
    scales = tokens.new_empty((tokens.shape[0], 1), dtype=torch.float32)
    rows = max(CHUNK // max(tokens.shape[1], 1), 1)
    # In chunks: a float32 copy of the whole would be twice what there is to save.
    for part, code, scale in zip(
        tokens.split(rows), codes.split(rows), scales.split(rows), strict=True
    ):
        values = part.float()
        largest = torch.linalg.vector_norm(values, math.inf, dim=-1, keepdim=True)
        scale.copy_((largest / FP8_MAX).clamp_min_(torch.finfo(torch.float32).tiny))
        code.copy_(values / scale)
    return codes.view(tensor.shape), scales.view(*tensor.shape[:-1], 1)

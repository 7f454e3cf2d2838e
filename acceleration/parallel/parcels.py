"""Plain data with tensors in it, as it travels between processes: no object, no code.

Tensors travel as bytes, which are handed on without being copied or read.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class Parcel:
    """A tensor on its way."""

    data: Any
    """``numpy.ndarray`` of bytes."""
    dtype: torch.dtype
    shape: tuple[int, ...]


PLAIN = (bool, int, float, str, bytes, type(None), torch.dtype, torch.Tensor, uuid.UUID)


def is_plain(value: Any) -> bool:
    """Whether a value is data through and through."""
    if isinstance(value, Mapping):
        return all(is_plain(key) and is_plain(one) for key, one in value.items())
    if isinstance(value, list | tuple | set | frozenset):
        return all(map(is_plain, value))
    # A class made of a tensor (a quantized one) is more than its values.
    return type(value) is torch.nn.Parameter or (
        isinstance(value, PLAIN)
        and (not isinstance(value, torch.Tensor) or type(value) is torch.Tensor)
    )


def packed(value: Any) -> Any:
    """A value with parcels in place of its tensors; one that stands in several places goes once."""
    made: dict[int, Parcel] = {}

    def pack(one: Any) -> Any:
        if not isinstance(one, torch.Tensor):
            return _each(one, pack)
        if id(one) not in made:
            made[id(one)] = _parcel(one)
        return made[id(one)]

    return pack(value)


def _parcel(tensor: torch.Tensor) -> Parcel:
    plain = tensor.detach().to("cpu").contiguous()
    flat = plain.reshape(-1).view(torch.uint8) if plain.numel() else plain.new_empty(0).byte()
    return Parcel(flat.numpy(), tensor.dtype, tuple(tensor.shape))


def unpacked(value: Any, device: torch.device) -> Any:
    """The value with its tensors, each in memory of its own on a device."""
    if isinstance(value, Parcel):
        if not len(value.data):
            return torch.empty(value.shape, dtype=value.dtype, device=device)
        flat = torch.empty(len(value.data), dtype=torch.uint8)
        flat.numpy()[:] = value.data
        return flat.view(value.dtype).view(value.shape).to(device)
    return _each(value, lambda one: unpacked(one, device))


def _each(value: Any, change: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: change(one) for key, one in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return type(value)(*map(change, value))
    if isinstance(value, list | tuple):
        return type(value)(map(change, value))
    return value

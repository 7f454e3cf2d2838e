"""What a device is, as far as kernels ask."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache

import torch


@dataclass(frozen=True)
class DeviceFacts:
    """Kind, name and compute capability of a device."""

    kind: str
    """``cuda``, ``rocm``, ``cpu``, ``mps``, ``xpu``, …"""
    name: str
    capability: tuple[int, int] | None = None
    """NVIDIA's compute capability; None elsewhere. AMD devices report numbers of another
    meaning through the same call, so they have none here."""

    def __str__(self) -> str:
        if self.capability is None:
            return self.name
        return f"{self.name} (sm{self.capability[0]}{self.capability[1]})"


@cache
def facts_of(device: torch.device) -> DeviceFacts:
    """The facts of a device; they do not change while a process lives."""
    if device.type == "cuda":
        name = torch.cuda.get_device_name(device)
        if getattr(torch.version, "hip", None):
            return DeviceFacts("rocm", name)
        return DeviceFacts("cuda", name, torch.cuda.get_device_capability(device))
    return DeviceFacts(device.type, device.type)


def is_capturing(device: torch.device) -> bool:
    """Whether what a device is given is recorded as a CUDA graph just now, instead of done."""
    return device.type == "cuda" and torch.cuda.is_current_stream_capturing()

"""The interface of a backend, and how its package is looked for."""

from __future__ import annotations

import importlib.machinery
import importlib.metadata
import importlib.util
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

import torch

from .device import DeviceFacts
from .limits import Limits


class Kernel(Protocol):
    """Computes attention; a package's function behind a signature of ours."""

    def __call__(
        self,
        q: torch.Tensor,
        k: torch.Tensor,
        v: torch.Tensor,
        mask: torch.Tensor | None,
        scale: float | None,
        causal: bool,
    ) -> torch.Tensor:
        """Attention in the backend's layout: ``[B, H, L, D]`` or ``[B, L, H, D]``.

        ``mask`` is ``[B or 1, H or 1, Lq or 1, Lk or 1]``, ``scale`` None for ``D ** -0.5``.
        The inputs must not be written to.
        """
        ...


@dataclass(frozen=True)
class Backend:
    """One way to compute attention."""

    name: str
    """The value in the node's list; never changes."""
    title: str
    """Name for people."""
    limits: Limits
    load: Callable[[], Kernel]
    """Imports the package. Called once, when the backend is first needed."""
    module: str = ""
    """What must be importable; empty for what torch itself has."""
    distribution: str = ""
    """Whose version belongs to a remembered choice."""
    install: str = ""
    """The command that installs it."""
    heads_first: bool = True
    """Layout of the kernel: ``[B, H, L, D]``, else ``[B, L, H, D]``."""
    falls_to: tuple[str, ...] = ("sdpa",)
    """Who takes a call that does not fit, in order; the host's own function comes last."""
    races: bool = True
    """Whether auto times it."""
    tolerance: float | None = None
    """Largest relative error (L2) of a working kernel; None takes the dtype's own."""
    experimental: bool = False
    """Measured on no GPU by this pack (``benchmarks/results``); said wherever it is named."""
    formerly: tuple[str, ...] = ()
    """Names that older versions offered and that mean this one now."""
    order: int = field(default=100, compare=False)
    """Place in the node's list."""
    limits_elsewhere: Mapping[str, Limits] = field(default_factory=dict, compare=False)
    """Limits on kinds of device where they are others."""

    def limits_on(self, device: DeviceFacts) -> Limits:
        """The limits that hold on a device."""
        return self.limits_elsewhere.get(device.kind, self.limits)

    @property
    def exact(self) -> bool:
        """Output-preserving: only rounding tells it from another exact backend."""
        return not self.limits.quantizes

    @property
    def quality_class(self) -> str:
        """``output-preserving`` or ``quality-tradeoff``."""
        return "output-preserving" if self.exact else "quality-tradeoff"

    def version(self) -> str:
        """Version of its package, empty for what torch itself has."""
        if not self.distribution:
            return ""
        try:
            return importlib.metadata.version(self.distribution)
        except importlib.metadata.PackageNotFoundError:
            return "unknown"


def is_installed(module: str) -> bool:
    """Whether a module can be found, without importing it or what it belongs to.

    A folder without ``__init__.py`` does not count: FlashAttention 4 installs ``flash_attn/cute``
    and may leave ``flash_attn`` itself such an empty shell.
    """
    path: list[str] | None = None
    spec: importlib.machinery.ModuleSpec | None = None
    for index, part in enumerate(module.split(".")):
        name = ".".join(module.split(".")[: index + 1])
        try:
            if index == 0:
                spec = importlib.util.find_spec(part)
            else:
                spec = importlib.machinery.PathFinder.find_spec(name, path)
        except (ImportError, ValueError):
            return False
        if spec is None:
            return False
        path = list(spec.submodule_search_locations or ())
    return spec is not None and spec.origin is not None

"""Gates: put on the blocks of a network for one evaluation, and taken off again.

A gate stands in for ``block.forward`` (an entry in the instance's ``__dict__``, removed in
``finally``) and hands every call to a handler. That works for every family, leaves weights, LoRA
and low-VRAM casting alone, and composes with the host's patches, which call the block as usual.

Gate objects are kept per block and reused: torch.compile guards on the identity of what it calls,
so a new object per evaluation would recompile each time. They hold nothing between evaluations.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any
from weakref import WeakKeyDictionary

import torch

Handler = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Called with the block's own forward, its positional and its keyword arguments."""

_ABSENT = object()


class Gate:
    """Stands in for the forward of one block."""

    __slots__ = ("__weakref__", "forward", "handler", "original")

    def __init__(self) -> None:
        self.original: Callable[..., Any] | None = None
        self.handler: Handler | None = None

        def forward(*args: Any, **kwargs: Any) -> Any:
            assert self.handler is not None and self.original is not None
            return self.handler(self.original, args, kwargs)

        self.forward = _left_alone(forward)


_gates: WeakKeyDictionary[torch.nn.Module, Gate] = WeakKeyDictionary()


def _left_alone(function: Callable[..., Any]) -> Callable[..., Any]:
    return torch.compiler.disable(function, recursive=False)


@cache
def untraced_itself(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the compiler out of a function but let it into what the function calls."""
    return _left_alone(function)


@cache
def untraced(function: Callable[..., Any]) -> Callable[..., Any]:
    """Keep the compiler out of a function and of everything it calls."""
    return torch.compiler.disable(function)


@contextmanager
def installed(plan: Sequence[tuple[torch.nn.Module, Handler]]) -> Iterator[None]:
    """Put gates on blocks for the length of the context, whatever happens inside."""
    placed: list[tuple[torch.nn.Module, Gate, Any]] = []
    try:
        for block, handler in plan:
            gate = _gates.get(block)
            if gate is None:
                gate = _gates[block] = Gate()
            before = block.__dict__.get("forward", _ABSENT)
            gate.original, gate.handler = block.forward, handler
            placed.append((block, gate, before))
            block.__dict__["forward"] = gate.forward
        yield
    finally:
        for block, gate, before in reversed(placed):
            if before is _ABSENT:
                block.__dict__.pop("forward", None)
            else:
                block.__dict__["forward"] = before
            gate.original = gate.handler = None

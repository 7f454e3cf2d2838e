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
from threading import Lock, get_ident
from typing import Any
from weakref import WeakKeyDictionary, ref

import torch

Handler = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Called with the block's own forward, its positional and its keyword arguments."""

_ABSENT = object()


class Gate:
    """Stands in for the forward of one block.

    Threads that sample one network at once each have handlers of their own, and whoever has none
    finds the block as it is. Within a thread the last handler counts: a run inside another one's
    evaluation is not its business.
    """

    __slots__ = ("__weakref__", "_before", "_block", "_handlers", "_original", "forward")

    def __init__(self, block: torch.nn.Module) -> None:
        self._block = ref(block)
        self._before: Any = _ABSENT
        self._original: Callable[..., Any] | None = None
        self._handlers: dict[int, list[Handler]] = {}

        def forward(*args: Any, **kwargs: Any) -> Any:
            handlers = self._handlers.get(get_ident())
            if handlers:
                assert self._original is not None
                return handlers[-1](self._original, args, kwargs)
            # Another thread, which may have found this gate just before it was taken off.
            return (self._original or self._found_again())(*args, **kwargs)

        self.forward = _left_alone(forward)

    def put(self, block: torch.nn.Module, handler: Handler) -> None:
        """Hand this thread's calls of the block to a handler."""
        if not self._handlers:
            self._before = block.__dict__.get("forward", _ABSENT)
            self._original = block.forward
            block.__dict__["forward"] = self.forward
        self._handlers.setdefault(get_ident(), []).append(handler)

    def take(self, block: torch.nn.Module) -> None:
        """Take this thread's last handler off; the block is as it was when none is left."""
        handlers = self._handlers[get_ident()]
        handlers.pop()
        if handlers:
            return
        del self._handlers[get_ident()]
        if self._handlers:
            return
        if self._before is _ABSENT:
            block.__dict__.pop("forward", None)
        else:
            block.__dict__["forward"] = self._before
        self._before, self._original = _ABSENT, None

    def _found_again(self) -> Callable[..., Any]:
        block = self._block()
        assert block is not None, "somebody is calling it"
        forward: Callable[..., Any] = block.forward
        return forward


_gates: WeakKeyDictionary[torch.nn.Module, Gate] = WeakKeyDictionary()
_lock = Lock()
"""Held while gates are put on and taken off, never while a block runs."""


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
    """Put gates on blocks for this thread and the length of the context, whatever happens."""
    placed: list[tuple[torch.nn.Module, Gate]] = []
    try:
        with _lock:
            for block, handler in plan:
                gate = _gates.get(block)
                if gate is None:
                    gate = _gates[block] = Gate(block)
                gate.put(block, handler)
                placed.append((block, gate))
        yield
    finally:
        with _lock:
            for block, gate in reversed(placed):
                gate.take(block)

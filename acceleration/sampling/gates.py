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
from functools import cache, partial
from threading import Lock, get_ident
from typing import Any, NamedTuple
from weakref import WeakKeyDictionary, ref

import torch

Handler = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]
"""Called with the block's own forward, its positional and its keyword arguments."""

_ABSENT = object()


class _Put(NamedTuple):
    """A handler as it was put on a gate."""

    handler: Handler
    around: bool


class Gate:
    """Stands in for the forward of one block.

    Threads that sample one network at once each have handlers of their own, and whoever has none
    finds the block as it is. Within a thread the last handler counts, as a run inside another one's
    evaluation is not its business; but those that are put *around* others hand on to it.
    """

    __slots__ = ("__weakref__", "_before", "_block", "_chains", "_handlers", "_original", "forward")

    def __init__(self, block: torch.nn.Module) -> None:
        self._block = ref(block)
        self._before: Any = _ABSENT
        self._original: Callable[..., Any] | None = None
        self._handlers: dict[int, list[_Put]] = {}
        self._chains: dict[int, Handler] = {}

        def forward(*args: Any, **kwargs: Any) -> Any:
            chain = self._chains.get(get_ident())
            if chain is not None:
                assert self._original is not None
                return chain(self._original, args, kwargs)
            # Another thread, which may have found this gate just before it was taken off.
            return (self._original or self._found_again())(*args, **kwargs)

        self.forward = _left_alone(forward)

    def put(self, block: torch.nn.Module, handler: Handler, around: bool = False) -> None:
        """Hand this thread's calls of the block to a handler, or around those that it has."""
        if not self._handlers:
            self._before = block.__dict__.get("forward", _ABSENT)
            self._original = block.forward
            block.__dict__["forward"] = self.forward
        handlers = self._handlers.setdefault(get_ident(), [])
        handlers.append(_Put(handler, around))
        self._chains[get_ident()] = _chain(handlers)

    def take(self, block: torch.nn.Module) -> None:
        """Take this thread's last handler off; the block is as it was when none is left."""
        handlers = self._handlers[get_ident()]
        handlers.pop()
        if handlers:
            self._chains[get_ident()] = _chain(handlers)
            return
        del self._handlers[get_ident()], self._chains[get_ident()]
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


def _chain(handlers: Sequence[_Put]) -> Handler:
    """One handler of all that act: what was put around others, outermost first, then the last."""
    around = [put.handler for put in handlers if put.around]
    inner = [put.handler for put in handlers if not put.around][-1:]
    *outer, chain = *around, *inner
    for handler in reversed(outer):
        chain = partial(_left_alone(_around), handler, chain)
    return chain


def _around(
    outer: Handler,
    inner: Handler,
    original: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Any:
    return outer(lambda *a, **k: inner(original, a, k), args, kwargs)


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
def installed(
    plan: Sequence[tuple[torch.nn.Module, Handler]], around: bool = False
) -> Iterator[None]:
    """Put gates on blocks for this thread and the length of the context, whatever happens.

    ``around`` puts them around whatever else is installed, before or within.
    """
    placed: list[tuple[torch.nn.Module, Gate]] = []
    try:
        with _lock:
            for block, handler in plan:
                gate = _gates.get(block)
                if gate is None:
                    gate = _gates[block] = Gate(block)
                gate.put(block, handler, around)
                placed.append((block, gate))
        yield
    finally:
        with _lock:
            for block, gate in reversed(placed):
                gate.take(block)

"""Positions of arguments as the blocks of a network have them.

A family says where a block's call carries each stream, by keyword and by position. A keyword keeps
its meaning when a parameter is added before it; a position does not, and would read another tensor
without a word. So the positions are taken from the signature of the block's class when a network
is met. A signature of ``*args, **kwargs`` says nothing, and the family's position stays.

The class is asked, not the instance: what another pack or a gate puts in the place of one block's
forward is still called as the host calls the class's.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any
from weakref import WeakKeyDictionary

from .base import Arg, BlockStack, Family, blocks_at
from .tokens import Along, TokenPlan

NO_POSITION = 10**6
"""Position of an argument that can only be passed by keyword: beyond that of any call."""


@dataclass(frozen=True)
class _Signature:
    """Names of the parameters after ``self`` with their positions."""

    positions: Mapping[str, int]
    is_open: bool
    """Whether it takes more than it names."""


_signatures: WeakKeyDictionary[Callable[..., Any], _Signature] = WeakKeyDictionary()
"""By the function itself, so that a class whose forward is replaced is looked at anew."""


class _UnclearError(Exception):
    """Carries a sentence part that says why a stream cannot be found in a block's call."""


def fitted(family: Family, network: Any) -> Family:
    """A family with the positions that the blocks of a network have.

    The same object where all agree. Where a block has no argument of a name, or the blocks of one
    stack disagree, the family is refused with a sentence: it runs uncached.
    """
    try:
        stacks = tuple(_fitted_stack(stack, network) for stack in family.stacks)
        side = tuple(
            replace(one, own=_place(one.path, one.own, forwards_at(network, one.path)))
            for one in family.side
        )
    except _UnclearError as error:
        return replace(family, refused=str(error))
    split = _fitted_split(family.split, network)
    if (stacks, side, split) == (family.stacks, family.side, family.split):
        return family
    return replace(family, stacks=stacks, side=side, split=split)


def _fitted_split(split: Mapping[str, TokenPlan], network: Any) -> Mapping[str, TokenPlan]:
    """What runs along tokens, with the positions that these blocks have.

    A version of the host whose blocks lack a tensor of it is not the one that was described: none.
    Ranges and counts of tokens came later than the rest, and may be missing.
    """
    found = {}
    for path, plan in split.items():
        forwards, rules = forwards_at(network, path), []
        for rule in plan.rules:
            try:
                rules.append(rule._replace(arg=_place(path, rule.arg, forwards)))
            except _UnclearError:
                if isinstance(rule, Along):
                    return {}
        try:
            enters = [each._replace(arg=_place(path, each.arg, forwards)) for each in plan.enters]
        except _UnclearError:
            return {}
        found[path] = replace(plan, rules=tuple(rules), enters=tuple(enters))
    return found


def _fitted_stack(stack: BlockStack, network: Any) -> BlockStack:
    forwards = forwards_at(network, stack.path)
    return replace(
        stack,
        inputs={name: _place(stack.path, arg, forwards) for name, arg in stack.inputs.items()},
    )


def forwards_at(network: Any, path: str) -> list[Callable[..., Any]]:
    """The different forwards of the classes of the blocks at a path, compiled blocks unwrapped."""
    blocks = (getattr(block, "_orig_mod", block) for block in blocks_at(network, path))
    return list(dict.fromkeys(type(block).forward for block in blocks))


def _place(path: str, arg: Arg, forwards: Iterable[Callable[..., Any]]) -> Arg:
    """Where these forwards take an argument."""
    seen = [_signature(forward) for forward in forwards]
    telling = [s for s in seen if arg.keyword in s.positions or not s.is_open]
    if any(arg.keyword not in signature.positions for signature in telling):
        raise _UnclearError(
            f"the blocks of {path} have no argument {arg.keyword!r} in this version of ComfyUI, so "
            "it is not known which one is the hidden state (please report it)"
        )
    places = {signature.positions[arg.keyword] for signature in telling} or {arg.position}
    if len(places) > 1:
        raise _UnclearError(
            f"the blocks of {path} take {arg.keyword!r} in different places in this version of "
            "ComfyUI (please report it)"
        )
    return arg._replace(position=places.pop())


def _signature(forward: Callable[..., Any]) -> _Signature:
    try:
        known = _signatures.get(forward)
        if known is None:
            known = _signatures[forward] = _read(forward)
        return known
    except TypeError:  # A callable that cannot be referred to weakly.
        return _read(forward)


def _read(forward: Callable[..., Any]) -> _Signature:
    try:
        parameters = list(inspect.signature(forward).parameters.values())
    except (TypeError, ValueError):
        return _Signature({}, True)
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    named = [p.name for p in parameters if p.kind in by_position][1:]  # Without self.
    alone = [p.name for p in parameters if p.kind is inspect.Parameter.KEYWORD_ONLY]
    positions = dict(zip(named, range(len(named)), strict=True)) | dict.fromkeys(alone, NO_POSITION)
    is_open = any(p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD) for p in parameters)
    return _Signature(positions, is_open)

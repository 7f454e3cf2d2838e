"""Finding the family of a network."""

from __future__ import annotations

from typing import Any

from . import chroma, flux, wan
from .base import Family, Structure

FAMILIES: tuple[Family, ...] = (flux.FAMILY, chroma.FAMILY, wan.FAMILY)

_BY_CLASS = {name: family for family in FAMILIES for name in family.classes}


def describe(network: Any) -> Structure | None:
    """The structure of a network, or None when it is not a transformer known here.

    A compiled network is looked at through its wrapper; a subclass of a known class counts as the
    known class as long as it has the same block stacks.
    """
    network = getattr(network, "_orig_mod", network)
    for cls in type(network).__mro__:
        family = _BY_CLASS.get(f"{cls.__module__}.{cls.__qualname__}")
        if family is not None and all(hasattr(network, stack.path) for stack in family.stacks):
            counts = tuple(len(getattr(network, stack.path)) for stack in family.stacks)
            return Structure(family, counts)
    return None

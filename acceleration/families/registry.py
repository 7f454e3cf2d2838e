"""Finding the family of a network."""

from __future__ import annotations

import importlib
import pkgutil
from typing import Any

from .base import Family, Structure, blocks_at
from .signatures import fitted

_NOT_FAMILIES = {"base", "registry", "signatures", "spectra", "tokens"}


def _load() -> tuple[Family, ...]:
    """Every FAMILY of the modules beside this one, so that adding a family is adding a file."""
    package = __name__.rpartition(".")[0]
    path = importlib.import_module(package).__path__
    names = sorted(m.name for m in pkgutil.iter_modules(path) if m.name not in _NOT_FAMILIES)
    modules = [importlib.import_module(f"{package}.{name}") for name in names]
    return tuple(module.FAMILY for module in modules)


FAMILIES: tuple[Family, ...] = _load()

_BY_CLASS = {name: family for family in FAMILIES for name in family.classes}


def published_fits() -> list[str]:
    """Names of every TeaCache fit that was published, once each."""
    return list(dict.fromkeys(fit.name for family in FAMILIES for fit in family.fits))


def describe(network: Any) -> Structure | None:
    """The structure of a network, or None when it is not a transformer known here.

    A compiled network is looked at through its wrapper; a subclass of a known class counts as the
    known class as long as it has the same block stacks. Positions of arguments are those of the
    network's own blocks.
    """
    network = getattr(network, "_orig_mod", network)
    for cls in type(network).__mro__:
        family = _BY_CLASS.get(f"{cls.__module__}.{cls.__qualname__}")
        if family is not None:
            counts = tuple(len(blocks_at(network, stack.path)) for stack in family.stacks)
            if sum(counts) > 0:
                family = family if family.refused else fitted(family, network)
                return Structure(family, counts)
    return None

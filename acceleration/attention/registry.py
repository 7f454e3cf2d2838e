"""Every backend there is, found by its file being in ``backends/``."""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import dataclass

from . import backends
from .backend import Backend, is_installed
from .device import DeviceFacts

AUTO, DEFAULT = "auto", "default"


def _load() -> dict[str, Backend]:
    """The BACKENDS of every module beside this one, so that adding one is adding a file."""
    names = sorted(module.name for module in pkgutil.iter_modules(backends.__path__))
    found = [
        backend
        for name in names
        for backend in importlib.import_module(f"{backends.__name__}.{name}").BACKENDS
    ]
    return {backend.name: backend for backend in sorted(found, key=lambda b: b.order)}


BACKENDS: dict[str, Backend] = _load()
"""By name, in the order of the node's list."""

CHOICES: tuple[str, ...] = (AUTO, DEFAULT, *BACKENDS)
"""Values of the node's list. They stay, whatever is installed, so that saved workflows do."""

FORMER: dict[str, str] = {old: b.name for b in BACKENDS.values() for old in b.formerly}
"""Values of older versions, and what they mean now. Workflows and files may still have them."""

EXPERIMENTAL = "experimental: not yet measured on a GPU by this pack"


@dataclass(frozen=True)
class Availability:
    """Whether one backend can be chosen on this machine."""

    name: str
    available: bool
    reason: str
    """Empty, or what is missing and the command that installs it."""
    quality_class: str


def available_backends() -> list[Availability]:
    """Every backend, in the order of the node's list, and whether its package is installed.

    Nothing is imported. Whether an installed package works on a device is found out by its probe
    when it is first used.
    """
    return [
        Availability(name, ok, "" if ok else missing(backend), backend.quality_class)
        for name, backend in BACKENDS.items()
        for ok in (not backend.module or is_installed(backend.module),)
    ]


def missing(backend: Backend) -> str:
    """Half a sentence for a package that is not installed."""
    return f"is not installed: run `{backend.install}` with ComfyUI's Python and restart ComfyUI"


def class_of(choice: str, allow_low_precision: bool = False) -> str:
    """The class a choice of the node's list belongs to, or one of an older version's."""
    choice = FORMER.get(choice, choice)
    if choice == AUTO:
        return "quality-tradeoff" if allow_low_precision else "output-preserving"
    return BACKENDS[choice].quality_class if choice in BACKENDS else "as the host is set up"


def describe_choices(device: DeviceFacts | None = None) -> str:
    """A few lines for a tooltip: which choices are exact, which are not, which cannot run here.

    What a choice is in itself stands on the help page, and how to install one is said when it is
    chosen.

    Parameters
    ----------
    device
        Where the host computes; None where that is not known.
    """
    kinds: dict[str, list[str]] = {}
    for name, backend in BACKENDS.items():
        kinds.setdefault(backend.quality_class, []).append(name)
    unmeasured = [name for name, backend in BACKENDS.items() if backend.experimental]
    impossible = {
        found.name: "not installed" if not found.available else _why_not_on(found.name, device)
        for found in available_backends()
    }
    lines = {
        "Exact": ["auto (the fastest, timed on this model)", "default (ComfyUI's own)"]
        + kinds["output-preserving"],
        "Changing the picture a little": kinds["quality-tradeoff"],
        "Not yet measured on a GPU by this pack": unmeasured,
        "Cannot run here": [f"{name} ({why})" for name, why in impossible.items() if why],
    }
    return "\n".join(f"{kind}: {', '.join(names)}." for kind, names in lines.items() if names)


def _why_not_on(name: str, device: DeviceFacts | None) -> str:
    why = "" if device is None else BACKENDS[name].limits_on(device).why_not_device(device)
    return why.partition(", this is")[0].removeprefix("it ")

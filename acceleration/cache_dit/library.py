"""Importing cache-dit, and its masks. Written against cache-dit 1.5.x.

Importing the library costs seconds, so it happens at first use.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from functools import cache
from typing import Any

from ..errors import AccelerationError, MissingPackageError

REQUIREMENT = "cache-dit>=1.5.3,<1.6"


def is_installed() -> bool:
    """Whether cache-dit can be imported, without importing it."""
    return importlib.util.find_spec("cache_dit") is not None


def require_installed(feature: str) -> None:
    """Raise MissingPackageError naming the pip command when cache-dit is missing."""
    if not is_installed():
        raise MissingPackageError(feature, REQUIREMENT)


def load() -> Any:
    require_installed("Apply Cache-DiT")
    # The library attaches stdout handlers to its loggers on import; its level is read only once.
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "WARNING")
    try:
        _hide_broken_xformers()
        import cache_dit
        from cache_dit.caching import cache_contexts
    except Exception as error:  # its imports run other packages, which fail in every way there is
        raise AccelerationError(
            f"The package cache-dit {version()} is installed but cannot be imported "
            f"({_first_cause(error)}): run `python -m pip install --upgrade '{REQUIREMENT}' "
            "diffusers transformers` with ComfyUI's Python and restart ComfyUI."
        ) from error
    return cache_dit, cache_contexts


@cache
def _hide_broken_xformers() -> None:
    """Keep an xformers that cannot be imported from taking diffusers and cache-dit with it.

    Each of its wheels is made for one version of torch. ComfyUI does without one that fails;
    diffusers, which cache-dit imports, does not (``diffusers/models/attention_processor.py``).
    """
    try:
        importlib.import_module("xformers.ops")
    except Exception:
        vars(importlib.import_module("diffusers.utils.import_utils"))["_xformers_available"] = False


def _first_cause(error: BaseException) -> str:
    """What went wrong at the bottom, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:200]}"


def version() -> str | None:
    """Installed version of cache-dit, without importing it."""
    from importlib import metadata

    try:
        return metadata.version("cache-dit")
    except metadata.PackageNotFoundError:
        return None


def steps_mask(preset: str, steps: int) -> list[int] | None:
    """The library's own step computation mask, None where it refuses the step count."""
    cache_dit, _ = load()
    try:
        return list(cache_dit.steps_mask(total_steps=steps, mask_policy=preset))
    except AssertionError:
        return None

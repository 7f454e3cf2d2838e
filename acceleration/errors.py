"""Errors whose text is meant for the person at the graph."""

from __future__ import annotations

import reprlib


class AccelerationError(ValueError):
    """A setting that cannot work; one sentence naming value, limit and way out."""


class MissingPackageError(AccelerationError):
    """An optional package is needed now and is not installed."""

    def __init__(self, feature: str, package: str) -> None:
        super().__init__(
            f"{feature} needs a package that is not installed: run "
            f"`python -m pip install '{package}'` with ComfyUI's Python and restart ComfyUI."
        )


def shown(value: object) -> str:
    """A value for a sentence, on one line and shortened: files may hold texts of any length."""
    return reprlib.repr(value)

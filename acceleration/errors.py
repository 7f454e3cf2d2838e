"""Errors whose text is meant for the person at the graph."""

from __future__ import annotations

import reprlib


class AccelerationError(ValueError):
    """A setting that cannot work; one sentence naming value, limit and way out.

    Attributes
    ----------
    title
        Of the node that it is about, where it comes up at another one, such as the sampler.
    """

    # The host shows the module's name before the sentence, and that is the path of a folder.
    __module__ = "dit_acceleration"

    title = ""

    def of(self, title: str) -> AccelerationError:
        """The same with a node's title first; who named it first, named it."""
        if not self.title:
            self.title = title
            self.args = (f"{title}: {self}",)
        return self


class MissingPackageError(AccelerationError):
    """An optional package is needed now and is not installed."""

    __module__ = AccelerationError.__module__

    def __init__(self, feature: str, package: str) -> None:
        super().__init__(
            f"{feature} needs a package that is not installed: run "
            f"`python -m pip install '{package}'` with ComfyUI's Python and restart ComfyUI."
        )


def shown(value: object) -> str:
    """A value for a sentence, on one line and shortened: files may hold texts of any length."""
    return reprlib.repr(value)

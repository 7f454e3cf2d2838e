"""One field of settings: its default with its help text, choices and limits, and what they check.

A settings dataclass is made of such fields. The node's inputs, the settings file, the environment
and the documentation are made from them, so nothing of a field is said a second time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import MISSING, dataclass, field, fields, replace
from typing import Any, TypeVar

from .errors import AccelerationError, shown

_KEY = "setting"
_Class = TypeVar("_Class", bound=type[Any])


@dataclass(frozen=True)
class Setting:
    """What is known of a field beside its type and default."""

    help: str
    """What it does and when to change it; the node's tooltip."""
    choices: tuple[str, ...] = ()
    former: tuple[str, ...] = ()
    """Choices of older versions, which still load."""
    lowest: float = -math.inf
    highest: float = math.inf
    """What the node's widget offers."""
    step: float | None = None
    """Of the widget."""
    limit: str = ""
    """What the value must be, as the end of a sentence. Without one only the widget has limits."""
    most: float | None = None
    """The highest value allowed, where that is more than the widget offers."""
    below: bool = False
    """Whether ``most`` itself is too much."""
    advanced: bool = False
    """Whether the node shows it only on request."""
    on_node: bool = True
    """Whether the node has it; else only files and the environment."""

    @property
    def values(self) -> str:
        """What it may be, for a table; empty for any text."""
        if self.choices:
            return ", ".join(self.choices)
        most = self.highest if self.most is None else self.most
        if math.isinf(self.lowest):
            return ""
        if math.isinf(most):
            return f"from {self.lowest:g}"
        return f"{self.lowest:g} to {'below ' if self.below else ''}{most:g}"

    def allows(self, value: float) -> bool:
        """Whether a number is within the limits."""
        most = self.highest if self.most is None else self.most
        fits = value < most if self.below else value <= most
        return math.isfinite(value) and self.lowest <= value and fits


def setting(default: Any, help: str, **known: Any) -> Any:
    """A field of a settings dataclass; ``known`` are the other fields of ``Setting``."""
    return field(default=default, metadata={_KEY: Setting(help, **known)})


def changed(base: type[Any], name: str, default: Any = MISSING, **known: Any) -> Any:
    """The field of a base class once more, with another default, text or place on the node."""
    old = base.__dataclass_fields__[name]
    new = {_KEY: replace(old.metadata[_KEY], **known)}
    return field(default=old.default if default is MISSING else default, metadata=new)


def in_order(*names: str) -> Callable[[_Class], _Class]:
    """Put the fields of a dataclass in this order, before any others.

    Fields of a base class come first otherwise, while saved graphs know widgets by their place.
    """

    def ordered(cls: _Class) -> _Class:
        found = cls.__dataclass_fields__
        cls.__dataclass_fields__ = {name: found[name] for name in (*names, *found)}
        return cls

    return ordered


def settings_of(cls: Any) -> Iterator[tuple[str, Any, Setting]]:
    """Name, default and what else is known of every field."""
    return ((f.name, f.default, f.metadata[_KEY]) for f in fields(cls))


def require(ok: bool, sentence: str) -> None:
    """Raise AccelerationError with a sentence for people unless ``ok``."""
    if not ok:
        raise AccelerationError(sentence)


class Checked:
    """Base of settings: every field is one of its choices and within its limits.

    Raises
    ------
    AccelerationError
        With one sentence that names the field, its value, the limit and the way out.
    """

    def __post_init__(self) -> None:
        for name, default, known in settings_of(self):
            value = getattr(self, name)
            if known.choices:
                choices = ", ".join(known.choices)
                require(
                    value in known.choices or value in known.former,
                    f"{name} is {shown(value)}: choose one of {choices}.",
                )
            elif isinstance(default, bool):
                require(
                    isinstance(value, bool), f"{name} is {shown(value)}: it must be true or false."
                )
            elif known.limit:
                number = f"{value:g}" if isinstance(value, float) else value
                require(known.allows(value), f"{name} is {number}: {known.limit}.")


def check_window(start: float, end: float) -> None:
    """Check the two percents between which something acts."""
    require(
        0.0 <= start < end <= 1.0,
        f"start_percent is {start:g} and end_percent {end:g}: start must be below end, and both "
        "between 0 and 1.",
    )

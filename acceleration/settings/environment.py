"""Environment variables: the defaults of a server, and the operator's lock.

They are read when a node runs, never at import, and always from the same prefix.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..errors import AccelerationError, shown
from .sections import SECTIONS, Configuration, Given, Resolved, Section, read_section, resolve

PREFIX = "DIT_ACCEL_"
LOCK = PREFIX + "LOCK_LOSSY"

SECONDARY = "SECONDARY_"
"""After a section's prefix: values for the second expert of Wan 2.2."""
WITH_SECONDARY = ("cache_config",)

SCRIPTS = frozenset(
    PREFIX + name
    for name in (
        *(
            "CACHE",
            "COMFYUI",
            "DEVICE",
            "DEMO_INSIDE",
            "BENCHMARK_INSIDE",
            "FULL_SIZE_BEGAN",
            "SPLIT_ON_CPU",
        ),
        *("BROWSER", "CHROMIUM", "FRONT_END", "NODE", "NO_BROWSER", "SCREENSHOTS"),
    )
)
"""Variables of the demo, the tests and the benchmarks, which mean nothing to a server."""

_LOCK_WORDS = ("LOCK", "LOSSY")
_WORD_ALIKE, _NAME_ALIKE = 0.8, 0.85
"""What a word and a whole name must share with the lock's to be meant for it, as difflib's ratio.

A letter too few or too many is 0.86 to 0.89 in a word and 0.97 in the name, ``ACCEL_LOCK_LOSSY``
0.89.
"""

_OFF = ("", "0", "false", "no", "off")

Environment = Mapping[str, str]


def lossy_locked(environ: Environment = os.environ) -> str | None:
    """Why every lever that changes pictures is off on this server, or None if it is not.

    Anything but an empty value, 0, false, no and off locks: an operator's typing mistake must not
    open the lock, and it must not stop anybody's workflow. A name that is meant for the lock and is
    not its name locks as well; nodes go further and refuse it (``require_known``).
    """
    for name in (LOCK, *unknown(environ)):
        closed = environ.get(name, "").strip().lower() not in _OFF
        if closed and (name == LOCK or _is_like_the_lock(name)):
            meant = "" if name == LOCK else f", which is no variable of this pack; {LOCK} is"
            return (
                "the operator of this server has switched off what changes pictures "
                f"({name} is set{meant})"
            )
    return None


def unknown(environ: Environment) -> list[str]:
    """Names that begin like our variables, or are meant for the lock, and belong to no section.

    What follows a section's own begin is checked where that section is read, except for what is
    meant for the lock: that concerns every node.
    """
    known = {LOCK, *SCRIPTS}
    known.update(*map(_variables_of, SECTIONS))
    begins = tuple(_begin(section) for section in SECTIONS.values())
    return [
        name
        for name in environ
        if name not in known
        and (
            _is_like_the_lock(name)
            or (name.upper().startswith(PREFIX) and not name.startswith(begins))
        )
    ]


def _is_like_the_lock(name: str) -> bool:
    capitals = name.upper()
    if capitals.startswith(PREFIX):
        parts = capitals.removeprefix(PREFIX).split("_")
        for word in _LOCK_WORDS:
            if word in capitals or difflib.get_close_matches(word, parts, 1, _WORD_ALIKE):
                return True
    return bool(difflib.get_close_matches(LOCK, [capitals], 1, _NAME_ALIKE))


def require_known(environ: Environment) -> None:
    """Raise AccelerationError for a variable that begins like ours and is not known.

    Such a name is a typing mistake. Above all it might be the lock's, and the operator must learn
    of it before a picture is changed.
    """
    for name in unknown(environ):
        begins = ", ".join(map(_begin, SECTIONS.values()))
        lock = _is_like_the_lock(name)
        meant = f"write {LOCK} to switch off what changes pictures; " if lock else ""
        raise AccelerationError(
            f"environment variable {name} (with the value {shown(environ[name])}) is unknown: "
            f"{meant}allowed are {LOCK} and what begins with {begins} (see docs/settings.md)."
        )


def variable(section: Section, key: str, secondary: bool = False) -> str:
    """Name of the environment variable for a key of a section."""
    name = section.short_names.get(key, key.upper())
    return f"{PREFIX}{section.variables}_{SECONDARY if secondary else ''}{name}"


def variables(section: Section, secondary: bool = False) -> dict[str, str]:
    """Every environment variable of a section, and the key that it sets."""
    keys = [k for k in section.kinds if k not in section.switches or k in section.short_names]
    return {variable(section, key, secondary): key for key in keys}


def _begin(section: Section) -> str:
    return f"{PREFIX}{section.variables}_"


def _variables_of(key: str) -> set[str]:
    """Every variable that the section of a key has, those of a second expert included."""
    section = SECTIONS[key]
    second = variables(section, secondary=True) if key in WITH_SECONDARY else {}
    return {*variables(section), *second}


def from_environment(key: str, environ: Environment, secondary: bool = False) -> Given:
    """What the environment gives for a section.

    Raises
    ------
    AccelerationError
        For an unknown variable with our prefix, and for a value that does not fit; the sentence
        names the variable.
    """
    section = SECTIONS[key]
    names = variables(section, secondary)
    begin, known = _begin(section), _variables_of(key)
    for name, value in environ.items():
        if name.startswith(begin) and name not in known:
            allowed = ", ".join(known.removeprefix(begin) for known in variables(section))
            raise AccelerationError(
                f"environment variable {name} (with the value {shown(value)}) is unknown: after "
                f"{begin} may stand {allowed}."
            )
    given = {
        key: _number(environ[name], section.kinds[key])
        for name, key in names.items()
        if environ.get(name, "").strip()
    }

    def origin(key: str) -> str:
        used = [variable(section, one, secondary) for one in ([key] if key else given)]
        return f"environment variable{'s' if len(used) > 1 else ''} {', '.join(used)}"

    return read_section(section, given, origin) if given else Given()


def settings_for(
    key: str,
    node: Mapping[str, Any],
    configuration: Any,
    environ: Environment = os.environ,
) -> Resolved:
    """What a node uses on this server; see ``resolve``.

    ``configuration`` is whatever came in through the node's socket, so it is looked at here.
    """
    if configuration is not None and not isinstance(configuration, Configuration):
        raise AccelerationError(
            f"config is a {type(configuration).__name__}: connect Load Acceleration Config."
        )
    require_known(environ)
    first = from_environment(key, environ)
    found = resolve(key, node, configuration, first)
    if key not in WITH_SECONDARY:
        return found
    second = from_environment(key, environ, secondary=True)
    if not second.values:
        return found
    return replace(found, second=resolve(key, node, configuration, first, second))


def _number(text: str, kind: type) -> Any:
    """A text as a number where one is wanted; else as it is, to be checked like a file's."""
    text = text.strip()
    try:
        return kind(text) if kind in (int, float) else text
    except ValueError:
        return text

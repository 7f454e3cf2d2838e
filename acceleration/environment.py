"""Environment variables: the defaults of a server, and the operator's lock.

They are read when a node runs, never at import, and always from the same prefix.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from .configuration import (
    SECTIONS,
    Configuration,
    Given,
    Resolved,
    Section,
    read_section,
    resolve,
)
from .errors import AccelerationError, shown

PREFIX = "DIT_ACCEL_"
LOCK = PREFIX + "LOCK_LOSSY"

SECONDARY = "SECONDARY_"
"""After a section's prefix: values for the second expert of Wan 2.2."""
WITH_SECONDARY = ("cache_config",)

_OFF = ("", "0", "false", "no", "off")

Environment = Mapping[str, str]


def lossy_locked(environ: Environment = os.environ) -> str | None:
    """Why every lever that changes pictures is off on this server, or None if it is not.

    Anything but an empty value, 0, false, no and off locks: an operator's typing mistake must not
    open the lock, and it must not stop anybody's workflow.
    """
    if environ.get(LOCK, "").strip().lower() in _OFF:
        return None
    return f"the operator of this server has switched off what changes pictures ({LOCK} is set)"


def variable(section: Section, key: str, secondary: bool = False) -> str:
    """Name of the environment variable for a key of a section."""
    name = section.short_names.get(key, key.upper())
    return f"{PREFIX}{section.variables}_{SECONDARY if secondary else ''}{name}"


def variables(section: Section, secondary: bool = False) -> dict[str, str]:
    """Every environment variable of a section, and the key that it sets."""
    keys = [k for k in section.kinds if k not in section.switches or k in section.short_names]
    return {variable(section, key, secondary): key for key in keys}


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
    begin = f"{PREFIX}{section.variables}_"
    known = {*variables(section), *(variables(section, True) if key in WITH_SECONDARY else ())}
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

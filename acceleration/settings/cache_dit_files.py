"""How cache-dit's settings files are laid out, and where our sections lie in them.

``load_configs`` of cache-dit 1.5.3 reads sections and one bare key, ``attention_backend``; older
files have the keys of ``cache_config`` without a section around them. Here everything that has a
meaning is brought into the section where it has it; the rest stays and is named in a notice.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from ..errors import AccelerationError, shown
from . import quantize_names

CACHE, CALIBRATOR, ATTENTION = "cache_config", "calibrator_config", "attention_config"
QUANTIZE = "quantize_config"

BACKENDS = {
    "native": "sdpa",
    "_native_cudnn": "sdpa_cudnn",
    "_sdpa_cudnn": "sdpa_cudnn",
    "_native_efficient": "sdpa_efficient",
    "_native_flash": "sdpa_flash",
    "_native_math": "sdpa_math",
    "xformers": "xformers",
    "flash": "flash",
    "flash_varlen": "flash",
    "_flash_3": "flash3",
    "_flash_varlen_3": "flash3",
    "sage": "sage",
    "sage_varlen": "sage",
    "sage3": "sage3",
}
"""The library's attention backends (its own and the names of diffusers 0.36) and ours."""

_BACKEND_PLACES = (
    ("attention_backend",),
    ("parallelism_config", "attention_backend"),
    ("parallelism_config", "parallel_kwargs", "attention_backend"),
)
"""Where a file may name one. The first that has a meaning here counts."""

ELSEWHERE = {
    "quantize": "what counts is quant_type or precision in quantize_config",
    "attention_backend": "what counts is backend in attention_config",
}
"""Parts of the library's files that this pack does not act on, and what to do instead."""

_BARE = ("quantize", "attention_backend")
"""Those of them that may be a single value."""


def arranged(
    data: Mapping[str, Any], sections: Collection[str], cache_keys: Collection[str]
) -> Mapping[str, Any]:
    """A file's data with all that has a meaning here in our sections.

    Parameters
    ----------
    sections
        Names of our sections.
    cache_keys
        What may stand in ``cache_config``.

    Raises
    ------
    AccelerationError
        When two places contradict each other.
    """
    bare = not any(key in sections or key in ELSEWHERE or key == CALIBRATOR for key in data)
    if bare and any(key in cache_keys for key in data):
        return {CACHE: data}
    return _with_quantize(_with_attention(_with_calibrator(data)))


def _with_quantize(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """A bare type of quantized weights in the section for it, unless that names one itself."""
    wanted, own = data.get("quantize"), data.get(QUANTIZE, {})
    names = ("precision", *quantize_names.TYPE_KEYS)
    if not isinstance(wanted, str) or not isinstance(own, Mapping) or any(k in own for k in names):
        return data
    rest = {key: value for key, value in data.items() if key != "quantize"}
    return {**rest, QUANTIZE: {**own, "quant_type": wanted}}


def _with_calibrator(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The calibrator's own section as part of ``cache_config``, where files have its keys."""
    if CALIBRATOR not in data:
        return data
    given, cache = data[CALIBRATOR], data.get(CACHE, {})
    for section, part in ((CALIBRATOR, given), (CACHE, cache)):
        if not isinstance(part, Mapping):
            raise AccelerationError(f"{section} is {shown(part)}, but must hold keys and values.")
    twice = [key for key in given if key in cache]
    if twice:
        raise AccelerationError(
            f"{CALIBRATOR} and {CACHE} both give {', '.join(map(shown, twice))}: give it once."
        )
    kind = "dmd" if any(str(key).startswith("dmd_") for key in given) else "taylorseer"
    rest = {key: value for key, value in data.items() if key != CALIBRATOR}
    return {**rest, CACHE: {**cache, "calibrator_type": kind, **given}}


def _with_attention(data: Mapping[str, Any]) -> Mapping[str, Any]:
    """The attention backend in its own section.

    One that ``attention_config`` names itself wins. One that is not known here or says something
    else stays where it is, and is named among what has no effect.
    """
    own = data.get(ATTENTION, {})
    if not isinstance(own, Mapping):
        return data
    wanted = [(place, _known(_at(data, place))) for place in _BACKEND_PLACES]
    backend = own.get("backend", next((name for _, name in wanted if name), None))
    if backend is None:
        return data
    for place, name in wanted:
        if name == backend:
            data = _without(data, place)
    return {**data, ATTENTION: {**own, "backend": backend}}


def _known(wanted: Any) -> str | None:
    return BACKENDS.get(wanted) if isinstance(wanted, str) else None


def _at(data: Any, place: tuple[str, ...]) -> Any:
    for key in place:
        data = data.get(key) if isinstance(data, Mapping) else None
    return data


def _without(data: Mapping[str, Any], place: tuple[str, ...]) -> dict[str, Any]:
    """A copy that lacks what is at a place."""
    key, *deeper = place
    if not deeper:
        return {name: value for name, value in data.items() if name != key}
    return {**data, key: _without(data[key], tuple(deeper))}


def without_effect(file: str, section: str, part: Any) -> list[str]:
    """A notice that names every key of a section that this pack does not act on.

    Raises
    ------
    AccelerationError
        When it is no section.
    """
    instead = ELSEWHERE[section]
    if isinstance(part, Mapping):
        named = ", ".join(f"{key} {shown(value)}" for key, value in _leaves(part))
        return [f"file {file}, {section}: no effect here of {named}; {instead}"] if named else []
    if section in _BARE:
        return [f"file {file}: no effect here of {section} {shown(part)}; {instead}"]
    raise AccelerationError(
        f"file {file}, {section}: it is {shown(part)}, but must hold keys and values."
    )


def _leaves(part: Mapping[str, Any]) -> list[tuple[str, Any]]:
    """Keys and values, with those of a group one level down under ``group.key``."""
    found: list[tuple[str, Any]] = []
    for key, value in part.items():
        if isinstance(value, Mapping):
            found += [(f"{key}.{inner}", one) for inner, one in value.items()]
        else:
            found.append((key, value))
    return found

"""Settings that travel: in the graph, in a file, or in the environment of a server.

A settings dataclass is one *section* of a file, and every field of it is a key of that section and
an environment variable. What a node uses is resolved field by field, the nearest source first:

    node > file > environment > default

A widget always holds a value, so "set on the node" means: other than the field's default.
"""

from __future__ import annotations

import math
import typing
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from ..attention.settings import AttentionSettings
from ..errors import AccelerationError, shown
from ..performance import PerformanceSettings
from ..progressive import ProgressiveSettings
from ..quantize import QuantizeSettings
from ..report import DEFAULT
from . import cache_dit_files, cache_dit_names, parallel_names, quantize_names
from .caching import CacheDiTSettings, TeaCacheSettings
from .parallel import ParallelSettings

NODE = "node"

LIST_FIELDS = ("scm_compute_bins", "scm_cache_bins", "custom_coefficients")
"""Texts of numbers with commas; a file may write them as lists."""

_KINDS = {int: "a whole number", float: "a number", bool: "true or false", str: "a text"}
_WORDS = {"true": True, "yes": True, "on": True, "1": True}
_WORDS |= {"false": False, "no": False, "off": False, "0": False}
_LARGEST = 1e9


@dataclass(frozen=True)
class Section:
    """One settings dataclass as a part of a file and as a group of environment variables."""

    key: str
    """Name of the section in a file, such as ``cache_config``."""
    settings: type[Any]
    """The dataclass, which checks itself."""
    variables: str
    """Begin of its environment variables after the prefix of the pack."""
    short_names: Mapping[str, str] = field(default_factory=dict)
    """Keys whose environment variable is not simply their name in capitals."""
    switches: tuple[str, ...] = ()
    """Further keys that are true or false, understood by ``translate``."""
    aliases: tuple[str, ...] = ()
    """Further keys of files only, understood by ``translate``."""
    renamed: Mapping[str, str] = field(default_factory=dict)
    """Keys of older files, and today's."""
    translate: Callable[[dict[str, Any]], cache_dit_names.Translation] | None = None
    """Turns switches and aliases into fields."""

    @property
    def kinds(self) -> dict[str, type]:
        """Every key that may be given by file or environment, with its type."""
        hints = typing.get_type_hints(self.settings)
        kinds = {f.name: hints[f.name] for f in fields(self.settings)}
        return kinds | dict.fromkeys(self.switches, bool)

    @property
    def file_keys(self) -> set[str]:
        """Every key that a file may have in this section."""
        return {*self.kinds, *self.aliases, *self.renamed}

    def defaults(self) -> dict[str, Any]:
        """The value of every field that nobody has set."""
        return asdict(self.settings())


SECTIONS: dict[str, Section] = {
    section.key: section
    for section in (
        Section(
            "cache_config",
            CacheDiTSettings,
            "CACHE_DIT",
            cache_dit_names.SHORT_NAMES,
            switches=tuple(cache_dit_names.SWITCHES),
            aliases=cache_dit_names.ALIASES,
            renamed=cache_dit_names.RENAMED,
            translate=cache_dit_names.translate,
        ),
        Section("teacache_config", TeaCacheSettings, "TEACACHE"),
        Section("attention_config", AttentionSettings, "ATTENTION"),
        Section("performance_config", PerformanceSettings, "PERFORMANCE"),
        Section("progressive_config", ProgressiveSettings, "PROGRESSIVE"),
        Section(
            "parallelism_config",
            ParallelSettings,
            "PARALLELISM",
            aliases=parallel_names.ALIASES,
            translate=parallel_names.translate,
        ),
        Section(
            "quantize_config",
            QuantizeSettings,
            "QUANTIZE",
            aliases=quantize_names.ALIASES,
            translate=quantize_names.translate,
        ),
    )
}


@dataclass(frozen=True)
class Given:
    """Fields that one source gives."""

    values: dict[str, Any] = field(default_factory=dict)
    origins: dict[str, str] = field(default_factory=dict)
    """Where each of these fields comes from, for people."""
    notices: tuple[str, ...] = ()


@dataclass(frozen=True)
class Configuration:
    """What a settings file holds, checked."""

    name: str
    """Name of the file, for people."""
    sections: Mapping[str, Given]
    notices: tuple[str, ...] = ()
    """What the file asks for and this pack does not do."""


@dataclass(frozen=True)
class Resolved:
    """Settings with the origin of every field."""

    settings: Any
    origins: dict[str, str]
    """``node``, ``file …``, ``environment variable …`` or ``default`` for every field."""
    notices: tuple[str, ...] = ()
    second: Resolved | None = None
    """What the second expert of a model of two uses, where that is set apart."""


def typed(key: str, value: Any, kind: type) -> Any:
    """A value of a file as the type of its field.

    Raises
    ------
    AccelerationError
        When it has another type; the sentence names key, value and what is allowed.
    """
    if key in LIST_FIELDS:
        value = _as_text(value)
    if kind is bool and isinstance(value, str):
        value = _WORDS.get(value.lower(), value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    if number and kind in (int, float):
        if not math.isfinite(value) or abs(value) > _LARGEST:
            raise AccelerationError(
                f"{key} is {shown(value)}: it must be between {-_LARGEST:.0f} and {_LARGEST:.0f}."
            )
        if kind is float or value == int(value):
            return kind(value)
    if not isinstance(value, kind) or (kind is int and isinstance(value, bool)):
        raise AccelerationError(f"{key} is {shown(value)}: it must be {_KINDS[kind]}.")
    return value


def _as_text(value: Any) -> Any:
    """A number or a list of numbers as text with commas; anything else as it is."""
    values = value if isinstance(value, list) else [value]
    if any(isinstance(v, bool) or not isinstance(v, int | float) for v in values):
        return value
    return ",".join(map(repr, values))


def read_section(section: Section, raw: Any, origin: Callable[[str], str]) -> Given:
    """Check what a source gives for a section.

    Parameters
    ----------
    raw
        Keys and values; anything but a mapping is refused.
    origin
        Where a key comes from, for people and for the sentences of errors.

    Raises
    ------
    AccelerationError
        For an unknown key, a wrong type or a value out of its range.
    """
    whole = origin("")
    if not isinstance(raw, Mapping):
        raise AccelerationError(f"{whole}: it is {shown(raw)}, but must hold keys and values.")
    found: dict[str, Any] = {}
    kinds = section.kinds
    for key, value in raw.items():
        name = section.renamed.get(key, key)
        if key not in section.file_keys:
            raise AccelerationError(_unknown(section, key, value, whole))
        if name in found:
            older = next(old for old, today in section.renamed.items() if today == name)
            raise AccelerationError(
                f"{whole}: {older} is an older name of {name}: give one of them."
            )
        try:
            found[name] = value if key in section.aliases else typed(name, value, kinds[name])
        except AccelerationError as error:
            raise AccelerationError(f"{origin(key)}: {error}") from None
    try:
        done = section.translate(found) if section.translate else cache_dit_names.Translation(found)
    except AccelerationError as error:
        raise AccelerationError(f"{whole}: {error}") from None
    origins = {name: origin(done.keys.get(name, name)) for name in done.values}
    make(section, done.values, origins)
    return Given(done.values, origins, tuple(f"{whole}: {text}" for text in done.notices))


def _unknown(section: Section, key: object, value: object, whole: str) -> str:
    home = next((s.key for s in SECTIONS.values() if key in s.kinds), None)
    hint = f"it belongs into {home}" if home else "allowed are " + ", ".join(section.kinds)
    return f"{whole}: the key {shown(key)} (with the value {shown(value)}) is unknown here: {hint}."


def make(section: Section, values: Mapping[str, Any], origins: Mapping[str, str]) -> Any:
    """The settings; an error names where the values in question come from."""
    try:
        return section.settings(**values)
    except AccelerationError as error:
        sentence = str(error)
        blamed = [origins[name] for name in values if name in sentence and name in origins]
        names = ", ".join(dict.fromkeys(n for n in blamed if n not in (NODE, DEFAULT)))
        raise AccelerationError(f"{names}: {sentence}" if names else sentence) from None


def read_configuration(data: Any, name: str) -> Configuration:
    """Check the plain data of a settings file.

    Raises
    ------
    AccelerationError
        With one sentence that names the file, the key, its value and what is allowed.
    """
    if not isinstance(data, Mapping) or not data:
        what = "is empty" if data is None or data == {} else f"holds {shown(data)}"
        raise AccelerationError(
            f"file {name} {what}: give it sections with keys and values ({', '.join(SECTIONS)})."
        )
    sections: dict[str, Given] = {}
    notices: list[str] = []
    cache_keys = SECTIONS[cache_dit_files.CACHE].file_keys
    try:
        data = cache_dit_files.arranged(data, SECTIONS, cache_keys)
    except AccelerationError as error:
        raise AccelerationError(f"file {name}: {error}") from None
    for key, part in data.items():
        if key in SECTIONS:
            sections[key] = read_section(SECTIONS[key], part, _always(f"file {name}, {key}"))
            notices += sections[key].notices
        elif key in cache_dit_files.ELSEWHERE:
            notices += cache_dit_files.without_effect(name, key, part)
        else:
            home = next((s.key for s in SECTIONS.values() if key in s.kinds), None)
            known = ", ".join([*SECTIONS, cache_dit_files.CALIBRATOR, *cache_dit_files.ELSEWHERE])
            hint = f"it belongs into the section {home}" if home else f"allowed are {known}"
            raise AccelerationError(
                f"file {name}: the section {shown(key)} (with the value {shown(part)}) is unknown: "
                f"{hint}."
            )
    return Configuration(name, sections, tuple(notices))


def _always(origin: str) -> Callable[[str], str]:
    """One origin for every key."""
    return lambda _: origin


def resolve(
    key: str, node: Mapping[str, Any], configuration: Configuration | None, *environment: Given
) -> Resolved:
    """What a node is going to use, and where every value comes from.

    Parameters
    ----------
    key
        Name of the section.
    node
        Values of the node's widgets.
    configuration
        The file connected to the node, if any.
    environment
        What the environment gives for this section; later ones win.

    Raises
    ------
    AccelerationError
        When the values do not go together; the sentence says where they come from.
    """
    section = SECTIONS[key]
    defaults = section.defaults()
    values, origins = dict(defaults), dict.fromkeys(defaults, DEFAULT)
    chosen = {name: value for name, value in node.items() if value != defaults.get(name)}
    file = configuration.sections.get(key, Given()) if configuration else Given()
    for given in (*environment, file, Given(chosen, dict.fromkeys(chosen, NODE))):
        values |= given.values
        origins |= given.origins
    notices = configuration.notices if configuration else ()
    return Resolved(make(section, values, origins), origins, notices)


def section_of(settings: object) -> Section | None:
    """The section that these settings are one of, or None."""
    return next((s for s in SECTIONS.values() if s.settings is type(settings)), None)


def as_data(*settings: Any) -> dict[str, dict[str, Any]]:
    """Settings as the plain data of a file, every field written out."""
    found: dict[str, dict[str, Any]] = {}
    for one in settings:
        section = section_of(one)
        if section is not None:
            found[section.key] = asdict(one)
            if section.switches:
                found[section.key] |= cache_dit_names.switches_for(found[section.key])
    return found

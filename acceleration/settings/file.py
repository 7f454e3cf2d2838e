"""Settings as text: YAML or JSON to plain data and back.

Files come from other people, so reading them must end in plain data or in one sentence, whatever
they hold. YAML is read by PyYAML's safe loader with less in it: no anchors (a few lines of them
can stand for gigabytes), no tags, no dates and no sexagesimal numbers, and ``off`` is a word, not
false, as in YAML 1.2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Any

import yaml

from ..errors import AccelerationError, shown

MAX_BYTES = 64 * 1024
"""Far more than any settings need."""
MOST_LEVELS = 20
"""A section of keys with lists is three."""

ENDINGS = (".yaml", ".yml", ".json")


class _Loader(yaml.SafeLoader):
    """The safe loader without anchors and tags, and with duplicate keys refused."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        event = self.peek_event()
        given = (getattr(event, "anchor", None), getattr(event, "tag", None))
        if isinstance(event, yaml.AliasEvent) or any(given):
            raise yaml.MarkedYAMLError(
                problem="anchors and tags (&, * and !) are not read here, write plain values",
                problem_mark=event.start_mark,
            )
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        return _without_duplicates(
            [
                (self.construct_object(k, True), self.construct_object(v, True))
                for k, v in node.value
            ]
        )

    def construct_number(self, node: Any) -> int | float:
        text = self.construct_scalar(node).lower().replace(".inf", "inf").replace(".nan", "nan")
        return int(text) if node.tag.endswith(":int") else float(text)


_SCALARS = {
    "null": (r"~|null|Null|NULL|", "~nN\0"),
    "bool": (r"true|True|TRUE|false|False|FALSE", "tTfF"),
    "int": (r"[-+]?[0-9]+", "-+0123456789"),
    "float": (
        r"[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?"
        r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)",
        "-+.0123456789",
    ),
}
_Loader.yaml_implicit_resolvers = {}
for _kind, (_pattern, _first) in _SCALARS.items():
    _tag = f"tag:yaml.org,2002:{_kind}"
    _Loader.add_implicit_resolver(
        _tag, re.compile(rf"^(?:{_pattern})$"), ["" if c == "\0" else c for c in _first]
    )
    if _kind in ("int", "float"):
        _Loader.add_constructor(_tag, _Loader.construct_number)


def _without_duplicates(pairs: list[tuple[Any, Any]]) -> dict[Any, Any]:
    found: dict[Any, Any] = {}
    for key, value in pairs:
        if not isinstance(key, str) or not key.isprintable() or len(key) > 100:
            raise AccelerationError(f"the key {shown(key)} is not a word")
        if key in found:
            raise AccelerationError(f"the key {shown(key)} is given twice")
        found[key] = value
    return found


def _require_shallow(data: Any) -> None:
    """Raise RecursionError as the parsers do, which differ in how deep they go."""
    level: list[Any] = [[data]]
    for _ in range(MOST_LEVELS):
        values = [v.values() if isinstance(v, dict) else v for v in level]
        level = [v for some in values for v in some if isinstance(v, (dict, list))]
    if level:
        raise RecursionError


def parse(data: bytes, name: str) -> Any:
    """The plain data of a file.

    Parameters
    ----------
    data
        Its content, UTF-8.
    name
        Its name, for the ending (``.json``, else YAML) and for sentences.

    Raises
    ------
    AccelerationError
        When it is too large, is not UTF-8 or breaks the rules of its format.
    """
    if len(data) > MAX_BYTES:
        raise AccelerationError(
            f"{name} has {len(data)} bytes: a settings file may have {MAX_BYTES}, so this is "
            "probably another kind of file."
        )
    try:
        text = data.decode("utf-8-sig")
        if name.lower().endswith(".json"):
            data = json.loads(text, object_pairs_hook=_without_duplicates)
        else:
            data = yaml.load(text, Loader=_Loader)
        _require_shallow(data)
        return data
    except UnicodeDecodeError as error:
        raise AccelerationError(
            f"{name} is not a text in UTF-8 (byte {error.start}): save it as UTF-8."
        ) from None
    except RecursionError:
        raise AccelerationError(
            f"{name} is nested too deeply: settings have sections and keys, nothing deeper."
        ) from None
    except (AccelerationError, ValueError, yaml.YAMLError) as error:
        kind = "JSON" if name.lower().endswith(".json") else "YAML"
        raise AccelerationError(f"{name} cannot be read as {kind}: {_problem(error)}.") from None


def _problem(error: Exception) -> str:
    """What is wrong, on one line and with the place."""
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} (line {error.lineno}, column {error.colno})"
    if isinstance(error, yaml.MarkedYAMLError):
        mark = error.problem_mark or error.context_mark
        place = f" (line {mark.line + 1}, column {mark.column + 1})" if mark else ""
        return " ".join(f"{error.problem or error.context}".split()) + place
    return " ".join(str(error).split()).rstrip(".")


def render(data: Mapping[str, Any], name: str, comment: str = "") -> str:
    """Plain data as the text of a file; ``comment`` becomes the first line of YAML."""
    if name.lower().endswith(".json"):
        return json.dumps(data, indent=2) + "\n"
    head = f"# {comment}\n" if comment else ""
    return head + yaml.safe_dump(dict(data), sort_keys=False, allow_unicode=True)

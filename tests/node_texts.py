"""The texts of our nodes as the page shows them, per language, in ``locales/<language>``.

English comes from the schemas: ``python3 tests/node_texts.py`` writes it, and with it the list of
inputs on every help page that has the markers of one. The other languages are written by people;
the script tells what is missing in them and what no longer belongs there.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from comfyui_environment import ROOT, add_arguments, ensure_environment, say
from comfyui_server import Server
from comfyui_workflow import DYNAMIC_COMBO, inputs_of, options_of

LANGUAGES = ("en", "zh", "ja")
# Tooltips that tell what this machine has. The page shows them as the server gives them, unless a
# language has a text of its own.
OF_THE_MACHINE = ("AccelAttentionBackend.inputs.backend.tooltip",)
# The page's message format gives these a meaning, so a text with one of them is mangled.
SPECIAL = "{}@$|"

PAGES = ROOT / "web" / "docs"
LIST = re.compile(r"(<!-- inputs -->\n).*?(<!-- /inputs -->)", re.DOTALL)

Texts = dict[str, Any]


def file_of(language: str) -> Path:
    return ROOT / "locales" / language / "nodeDefs.json"


def read(language: str) -> Texts:
    texts: Texts = json.loads(file_of(language).read_text(encoding="utf-8"))
    return texts


def english(info: Mapping[str, Any]) -> Texts:
    """The texts of our nodes, from the server's ``/object_info``."""
    return {
        kind: _node(info[kind])
        for kind in sorted(info)
        # The demo's nodes are no part of the pack.
        if kind.startswith("Accel")
    }


def _node(info: Mapping[str, Any]) -> Texts:
    tooltips = info.get("output_tooltips") or ()
    named = zip(info["output_name"], info["output"], strict=True)
    outputs = {
        str(slot): {
            # An output that is named after its type gets the page's own word for that type.
            "name": name if name != kind else None,
            "tooltip": tooltips[slot] if slot < len(tooltips) else None,
        }
        for slot, (name, kind) in enumerate(named)
    }
    return {
        "display_name": info["display_name"],
        "description": info["description"],
        "inputs": dict(_inputs(info)),
        "outputs": {slot: _without_none(texts) for slot, texts in outputs.items()},
    }


def _inputs(info: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Texts]]:
    for name, spec in inputs_of(info):
        options = options_of(spec)
        # The page looks a sub-input up with its dots replaced.
        key = f"{prefix}{name}"
        yield (
            key,
            _without_none(
                {"name": options.get("display_name", name), "tooltip": options.get("tooltip")}
            ),
        )
        if spec[0] == DYNAMIC_COMBO:
            for choice in options["options"]:
                yield from _inputs(choice["inputs"], f"{key}_")


def _without_none(texts: Mapping[str, str | None]) -> dict[str, str]:
    return {key: text for key, text in texts.items() if text}


def leaves(texts: Mapping[str, Any], path: str = "") -> dict[str, str]:
    """Every text by its place, such as ``AccelReport.inputs.model.tooltip``."""
    found: dict[str, str] = {}
    for key, value in texts.items():
        place = f"{path}.{key}" if path else key
        found |= leaves(value, place) if isinstance(value, dict) else {place: value}
    return found


def english_file(texts: Texts) -> str:
    """The content of the English file: the schemas' texts without those of the machine."""
    texts = json.loads(json.dumps(texts))
    for place in OF_THE_MACHINE:
        *path, last = place.split(".")
        holder = texts
        for key in path:
            holder = holder.get(key, {})
        holder.pop(last, None)
    return as_json(texts)


def as_json(texts: Texts) -> str:
    return json.dumps(texts, ensure_ascii=False, indent=2) + "\n"


WORDS = {
    "en": ("on", "off", "empty", " ({})", ": "),
    "zh": ("开", "关", "空", "（{}）", "："),
    "ja": ("オン", "オフ", "空", "（{}）", "："),
}
"""True, false and no text as a default, how a default stands behind a name, and a colon."""


def page(text: str, info: Mapping[str, Any], language: str = "en") -> str:
    """A help page with its list of inputs as the schema has them.

    A list and no table, as the page shows it in a column of 250 pixels.
    """
    told = read(language)[info["name"]]["inputs"] if language != "en" else {}
    *_, behind, colon = WORDS[language]
    lines = []
    for name, spec in inputs_of(info):
        options = options_of(spec)
        # What follows on further lines tells what this machine has.
        help_text = told.get(name, options)["tooltip"].partition("\n")[0]
        default = _default(options, language)
        shown = behind.format(default) if default else ""
        lines.append(f"- `{name}`{shown}{colon}{help_text}")
    return LIST.sub(lambda found: f"{found[1]}{chr(10).join(lines)}\n{found[2]}", text)


def _default(options: Mapping[str, Any], language: str) -> str:
    on, off, empty, *_ = WORDS[language]
    default = options.get("default")
    if isinstance(default, bool):
        return on if default else off
    if isinstance(default, float):
        return f"{default:g}"
    return empty if default == "" else str(default if default is not None else "")


def pages(info: Mapping[str, Any]) -> Iterator[tuple[Path, str]]:
    """Every help page with the text that it should have, in every language.

    The page asks for ``NODE/LANGUAGE.md`` first and takes ``NODE.md`` where there is none.
    """
    for path in sorted(PAGES.rglob("*.md")):
        here = path.parent == PAGES
        node, language = (path.stem, "en") if here else (path.parent.name, path.stem)
        yield path, page(path.read_text(encoding="utf-8"), info[node], language)


def main() -> None:
    parser = argparse.ArgumentParser(description="Writes the English texts of the nodes.")
    add_arguments(parser)
    chosen = parser.parse_args()
    environment = ensure_environment(chosen.host_version, chosen.comfyui, chosen.python)
    with Server(environment) as server:
        info = server.object_info()
    texts = english(info)
    for path, text in pages(info):
        path.write_text(text, encoding="utf-8")
    file_of("en").parent.mkdir(parents=True, exist_ok=True)
    file_of("en").write_text(english_file(texts), encoding="utf-8")
    wanted = set(leaves(texts))
    for language in LANGUAGES[1:]:
        there = set(leaves(read(language))) if file_of(language).exists() else set()
        for place in sorted(wanted - there):
            say(f"{language} lacks {place}")
        for place in sorted(there - wanted):
            say(f"{language} has {place}, which is no longer there")


if __name__ == "__main__":
    main()

"""Finds what is wrong with a saved workflow (UI format), given the server's description of nodes.

An example must open without a missing node and run once its files are there. Only the names of
files may be unknown to the server: nobody has all models.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

from comfyui_workflow import (
    NOTES,
    choices_of,
    inputs_of,
    is_widget,
    options_of,
    widget_inputs,
    widgets_of,
)

Node = Mapping[str, Any]
Info = Mapping[str, Any]
Box = tuple[float, float, float, float]

FILE_ENDINGS = (".safetensors", ".png", ".yaml", ".yml")
TITLE_HEIGHT = 30
ANYTHING = ("*", "COMFY_MATCHTYPE_V3")
NUMBERS: dict[str, tuple[type, ...]] = {"INT": (int,), "FLOAT": (int, float)}


def problems(workflow: Mapping[str, Any], info: Info) -> list[str]:
    """Every mistake as a sentence; an empty list is a workflow that opens and can run."""
    nodes = {node["id"]: node for node in workflow["nodes"]}
    found = [
        f"{name_of(node)}: the server has no such node"
        for node in nodes.values()
        if node["type"] not in NOTES and node["type"] not in info
    ]
    if found:
        return found
    real = [node for node in nodes.values() if node["type"] not in NOTES]
    for node in real:
        found += sockets(node, info[node["type"]])
        found += values(node, info[node["type"]])
    found += links(workflow, nodes, info)
    found += layout(workflow)
    return found


def name_of(node: Node) -> str:
    return f"Node {node['id']} ({node['type']})"


def sockets(node: Node, info: Info) -> Iterator[str]:
    """Required sockets are connected; saved outputs are the node's outputs."""
    connected = {entry["name"] for entry in node["inputs"] if entry.get("link") is not None}
    known = {widget.name for widget in widgets_of(info, node.get("widgets_values") or [])}
    known |= {name for name, _ in inputs_of(info)}
    for name in connected - known:
        yield f"{name_of(node)}: no input {name}"
    for name in info["input"].get("required", {}):
        if not is_widget(info["input"]["required"][name]) and name not in connected:
            yield f"{name_of(node)}: {name} is not connected"
    # Newer servers gave some nodes an output more; where nothing hangs on it, it may be missing.
    actual = list(zip(info["output_name"], map(plain, info["output"]), strict=True))
    for slot, entry in enumerate(node["outputs"]):
        there = slot < len(actual)
        if there and (entry["name"], plain(entry["type"])) != actual[slot]:
            yield f"{name_of(node)}: output {slot} is saved as {entry['name']}, is {actual[slot]}"
        elif not there and entry.get("links"):
            yield f"{name_of(node)}: output {slot} does not exist"
    if len(node["outputs"]) < len(actual):
        yield f"{name_of(node)}: only {len(node['outputs'])} of {len(actual)} outputs are saved"


def values(node: Node, info: Info) -> Iterator[str]:
    """Every widget has a value that it accepts."""
    saved = list(node.get("widgets_values") or [])
    try:
        widget_inputs(node, info)
    except ValueError as error:
        yield str(error)
        return
    for widget, value in zip(widgets_of(info, saved), saved, strict=False):
        wrong = refused(widget.spec, value)
        if wrong:
            yield f"{name_of(node)}: {widget.name or 'control after generate'} {wrong}"


def refused(spec: list[Any], value: Any) -> str:
    """Why a widget does not accept a value; empty if it does."""
    options = options_of(spec)
    choices = choices_of(spec)
    if choices is not None:
        if value in choices or (isinstance(value, str) and value.endswith(FILE_ENDINGS)):
            return ""
        return f"is {value!r}, choices are {choices}"
    kind = options.get("widgetType", spec[0])
    if kind in NUMBERS:
        if isinstance(value, bool) or not isinstance(value, NUMBERS[kind]):
            return f"is {value!r}, which is no {kind}"
        low, high = options.get("min", value), options.get("max", value)
        return "" if low <= value <= high else f"is {value!r}, allowed are {low} to {high}"
    wanted = {"STRING": str, "BOOLEAN": bool}[kind]
    return "" if isinstance(value, wanted) else f"is {value!r}, which is no {kind}"


def links(workflow: Mapping[str, Any], nodes: Mapping[int, Node], info: Info) -> Iterator[str]:
    """Both ends of every link exist, know of it, and have types that fit."""
    told: dict[int, list[tuple[str, int, int]]] = {}
    for node in nodes.values():
        for slot, entry in enumerate(node["inputs"]):
            if entry.get("link") is not None:
                told.setdefault(entry["link"], []).append(("in", node["id"], slot))
        for slot, entry in enumerate(node["outputs"]):
            for link in entry.get("links") or ():
                told.setdefault(link, []).append(("out", node["id"], slot))
    for link, source, source_slot, target, target_slot, kind in workflow["links"]:
        ends = sorted([("in", target, target_slot), ("out", source, source_slot)])
        if sorted(told.pop(link, [])) != ends:
            yield f"Link {link}: its nodes do not list it where it says"
            continue
        given = info[nodes[source]["type"]]["output"][source_slot]
        name = nodes[target]["inputs"][target_slot]["name"]
        specs = dict(inputs_of(info[nodes[target]["type"]]))
        wanted = specs[name][0] if name in specs else "*"
        if not fits(given, wanted) or plain(kind) not in (plain(given), "*"):
            yield f"Link {link}: {given}, saved as {kind}, into {name}, which takes {wanted}"
    for link in told:
        yield f"Link {link} is listed by a node and missing"


def fits(given: Any, wanted: Any) -> bool:
    """Whether an output of one type may go into an input of another."""
    if plain(given) == "*" or plain(wanted) == "*":
        return True
    return isinstance(wanted, str) and given in wanted.split(",")


def plain(kind: Any) -> Any:
    """A type as it is saved: one that adapts to its link is any type."""
    return "*" if kind in ANYTHING else kind


def layout(workflow: Mapping[str, Any]) -> Iterator[str]:
    """Nothing covers anything else, and every node lies within a group or outside all."""
    groups = [(group["title"], box_of(*group["bounding"])) for group in workflow["groups"]]
    nodes = [(name_of(node), node_box(node)) for node in workflow["nodes"]]
    for (one, box), (other, second) in itertools.combinations(nodes, 2):
        if overlap(box, second):
            yield f"{one} overlaps {other}"
    for (one, box), (other, second) in itertools.combinations(groups, 2):
        if overlap(box, second):
            yield f"Group {one!r} overlaps group {other!r}"
    for name, box in nodes:
        for title, frame in groups:
            if overlap(box, frame) and not inside(box, frame):
                yield f"{name} sticks out of group {title!r}"


def node_box(node: Node) -> Box:
    x, y = node["pos"]
    width, height = node["size"]
    # The position is that of the body; the title lies above it.
    return box_of(x, y - TITLE_HEIGHT, width, height + TITLE_HEIGHT)


def box_of(x: float, y: float, width: float, height: float) -> Box:
    return (x, y, x + width, y + height)


def overlap(one: Box, other: Box) -> bool:
    return one[0] < other[2] and other[0] < one[2] and one[1] < other[3] and other[1] < one[3]


def inside(box: Box, frame: Box) -> bool:
    return frame[0] <= box[0] and frame[1] <= box[1] and box[2] <= frame[2] and box[3] <= frame[3]

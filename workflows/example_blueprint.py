"""Builds the subgraph blueprint "Accelerate (preset)": our nodes in the usual order as one node.

The page lists it among the subgraph blueprints of its node library. A blueprint is a workflow with
one node whose type is the id of a subgraph; what the subgraph's inputs are linked to, sockets or
widgets, is what that one node shows.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from comfyui_workflow import inputs_of, widget_inputs
from example_builder import Graph

NAME = "Accelerate (preset)"
DESCRIPTION = (
    "Attention Backend and Performance Mode in one node, set for everyday use. Put it between the "
    "model and the sampler."
)
SEARCH = ["cache", "speed up", "performance mode", "teacache", "sage attention"]
INPUT_NODE, OUTPUT_NODE = -10, -20
WIDTH = 340


@dataclass(frozen=True)
class Link:
    """One of our nodes in the chain, its fixed values, and the widgets that the one node shows."""

    kind: str
    fixed: Mapping[str, Any] = field(default_factory=dict)
    shown: tuple[str, ...] = ()


CHAIN = (
    Link("AccelAttentionBackend", shown=("backend",)),
    Link(
        "AccelPerformanceMode",
        {"mode": "auto", "approximation": "balanced"},
        shown=("mode", "approximation", "target_speedup"),
    ),
)


def build(info: Mapping[str, Any]) -> dict[str, Any]:
    """The blueprint, built against the server's list of nodes."""
    subgraph = _subgraph(info)
    shown = subgraph["inputs"][1:]
    values = _shown_values(info)
    outer = {
        "id": 1,
        "type": subgraph["id"],
        "pos": [0, 0],
        "size": [WIDTH, 160],
        "flags": {},
        "order": 0,
        "mode": 0,
        "inputs": [
            {"name": "model", "type": "MODEL", "link": None},
            *(
                {
                    "name": entry["name"],
                    "type": entry["type"],
                    "widget": {"name": entry["name"]},
                    "link": None,
                }
                for entry in shown
            ),
        ],
        "outputs": [{"name": "MODEL", "type": "MODEL", "links": None}],
        "title": NAME,
        "properties": {"proxyWidgets": [["-1", entry["name"]] for entry in shown]},
        "widgets_values": [values[entry["name"]] for entry in shown],
    }
    return {
        "revision": 0,
        "last_node_id": 1,
        "last_link_id": 0,
        "nodes": [outer],
        "links": [],
        "groups": [],
        "version": 0.4,
        "definitions": {"subgraphs": [subgraph]},
        "extra": {"BlueprintDescription": DESCRIPTION, "BlueprintSearchAliases": SEARCH},
    }


def _id(name: str) -> str:
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, f"dit-acceleration.blueprint.{name}"))


def _shown_values(info: Mapping[str, Any]) -> dict[str, Any]:
    values: dict[str, Any] = {}
    for node, link in zip(_chain(info).nodes, CHAIN, strict=True):
        named = widget_inputs(node.saved, node.info)
        values |= {name: named[name] for name in link.shown}
    return values


def _chain(info: Mapping[str, Any]) -> Graph:
    """The nodes of the chain side by side; the first one's model is not connected yet."""
    graph = Graph(info, NAME)
    model = None
    for link in CHAIN:
        with graph.group(link.kind):
            model = graph.node(link.kind, model=model, **link.fixed)
    graph.lay_out()
    return graph


def _subgraph(info: Mapping[str, Any]) -> dict[str, Any]:
    graph = _chain(info)
    inner = [
        {
            "id": number,
            "origin_id": source,
            "origin_slot": source_slot,
            "target_id": target,
            "target_slot": target_slot,
            "type": kind,
        }
        for number, source, source_slot, target, target_slot, kind in graph.links
    ]
    inputs: list[dict[str, Any]] = []

    def enter(name: str, kind: Any, entry: dict[str, Any], target: int, slot: int) -> None:
        """Link a new input of the subgraph to an input of one of its nodes."""
        number = len(inner) + 1
        entry["link"] = number
        inner.append(
            {
                "id": number,
                "origin_id": INPUT_NODE,
                "origin_slot": len(inputs),
                "target_id": target,
                "target_slot": slot,
                "type": kind,
            }
        )
        place = [-150, 100 + 20 * len(inputs)]
        inputs.append(
            {"id": _id(name), "name": name, "type": kind, "linkIds": [number], "pos": place}
        )

    first, last = graph.nodes[0], graph.nodes[-1]
    enter("model", "MODEL", first.saved["inputs"][0], first.id, 0)
    for node, link in zip(graph.nodes, CHAIN, strict=True):
        specs = dict(inputs_of(node.info))
        for name in link.shown:
            kind = "COMBO" if isinstance(specs[name][0], list) else specs[name][0]
            entry = {"name": name, "type": kind, "widget": {"name": name}, "link": None}
            node.saved["inputs"].append(entry)
            enter(name, kind, entry, node.id, len(node.saved["inputs"]) - 1)
    leave = len(inner) + 1
    last.saved["outputs"][0]["links"] = [leave]
    inner.append(
        {
            "id": leave,
            "origin_id": last.id,
            "origin_slot": 0,
            "target_id": OUTPUT_NODE,
            "target_slot": 0,
            "type": "MODEL",
        }
    )
    right = last.saved["pos"][0] + last.saved["size"][0] + 100
    return {
        "id": _id(NAME),
        "version": 1,
        "state": {
            "lastGroupId": 0,
            "lastNodeId": len(graph.nodes),
            "lastLinkId": leave,
            "lastRerouteId": 0,
        },
        "revision": 0,
        "config": {},
        "name": NAME,
        "inputNode": {"id": INPUT_NODE, "bounding": [-200, 80, 140, 40 + 20 * len(inputs)]},
        "outputNode": {"id": OUTPUT_NODE, "bounding": [right, 80, 120, 60]},
        "inputs": inputs,
        "outputs": [
            {
                "id": _id("output"),
                "name": "MODEL",
                "type": "MODEL",
                "linkIds": [leave],
                "pos": [right + 20, 100],
            }
        ],
        "widgets": [],
        "nodes": [node.saved for node in graph.nodes],
        "groups": [],
        "links": inner,
        "extra": {},
        "description": DESCRIPTION,
    }

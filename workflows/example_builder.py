"""Builds a workflow in UI format from a short description, against the server's list of nodes.

The order of widgets, the types of links and the outputs come from the server, so a description
names only what matters: which node, which values, what goes into it. Groups are columns from left
to right, nodes in them lie one below the other.
"""

from __future__ import annotations

import json
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from comfyui_workflow import (
    WorkflowError,
    choices_of,
    inputs_of,
    is_hidden,
    is_widget,
    widgets_of,
)
from workflow_check import fits, plain, problems

OURS = "Accel"
ACCENT = {"color": "#232", "bgcolor": "#353"}
GROUP_COLOR, ACCENT_GROUP = "#3f789e", "#3f9e55"

# Pixels of the page's canvas; rows are generous, because its two renderers differ.
WIDTH, GAP, PADDING, TITLE, GROUP_TITLE = 340, 50, 24, 30, 50
SOCKET_ROW, WIDGET_ROW, TEXT_ROWS = 24, 32, 130
# Room for what a node shows once it ran.
SHOWN = {"SaveImage": 320, "PreviewImage": 320, "SaveVideo": 340, "PreviewAny": 180}
STRIP = 110


@dataclass(eq=False)
class Node:
    """A node of the workflow that is being built; `node[i]` or `node["NAME"]` is an output."""

    id: int
    kind: str
    info: Mapping[str, Any]
    saved: dict[str, Any] = field(default_factory=dict)

    def __getitem__(self, output: int | str) -> Output:
        names = list(self.info["output_name"])
        return Output(self, output if isinstance(output, int) else names.index(output))


@dataclass(frozen=True)
class Output:
    node: Node
    slot: int

    @property
    def type(self) -> Any:
        return self.node.info["output"][self.slot]


@dataclass
class Group:
    title: str
    color: str
    width: int
    below: bool
    nodes: list[Node] = field(default_factory=list)


class Graph:
    """A workflow in the making.

    Parameters
    ----------
    info
        The server's ``/object_info``; for nodes that it lacks, their description in its form.
    name
        The workflow's name, from which its id is made.
    """

    def __init__(self, info: Mapping[str, Any], name: str) -> None:
        self.info = info
        self.name = name
        self.nodes: list[Node] = []
        self.links: list[list[Any]] = []
        self.groups: list[Group] = []

    @contextmanager
    def group(
        self, title: str, *, below: bool = False, width: int = WIDTH, accent: bool = False
    ) -> Iterator[None]:
        """Nodes added inside lie in a new column, or `below` the group before."""
        color = ACCENT_GROUP if accent else GROUP_COLOR
        self.groups.append(Group(title, color, width, below))
        yield

    def offer(self, models: Iterable[Mapping[str, str]]) -> None:
        """Say on the nodes that load files where these come from."""
        for node in self.nodes:
            values = node.saved.get("widgets_values", [])
            named = [dict(model) for model in models if model["name"] in values]
            if named:
                node.saved["properties"]["models"] = named

    def note(self, text: str, height: int) -> None:
        """A Markdown note, which runs nothing."""
        node = Node(len(self.nodes) + 1, "MarkdownNote", {"output": [], "output_name": []})
        node.saved = _saved(node, {"title": "About this workflow", "widgets_values": [text]})
        node.saved["size"] = [self.groups[-1].width, height]
        self._place(node)

    def node(self, kind: str, title: str = "", /, **inputs: Any) -> Node:
        """Add a node: values for its widgets, nodes or outputs for its sockets.

        A node stands for its first output that fits. Widgets that are not named keep the server's
        default.

        Raises
        ------
        WorkflowError
            If the node has no such input, or one that must be named is missing.
        """
        if kind not in self.info:
            raise WorkflowError(f"{self.name}: the server has no node {kind}.")
        node = Node(len(self.nodes) + 1, kind, self.info[kind])
        named = node.info.get("display_name") or kind
        title = title or words(named)
        extra: dict[str, Any] = {"title": title} if title != named else {}
        if kind.startswith(OURS):
            extra |= ACCENT
        node.saved = _saved(node, extra)
        node.saved["widgets_values"] = self._widget_values(node, inputs)
        for name, spec in inputs_of(node.info):
            if not is_widget(spec):
                self._connect(node, name, spec, inputs.pop(name, None))
        if inputs:
            raise WorkflowError(f"{kind} has no input {', '.join(inputs)}.")
        node.saved["size"] = [self.groups[-1].width, _height(node)]
        self._place(node)
        return node

    def _place(self, node: Node) -> None:
        self.nodes.append(node)
        self.groups[-1].nodes.append(node)

    def _widget_values(self, node: Node, inputs: dict[str, Any]) -> list[Any]:
        values: list[Any] = []
        lacking = 0
        for widget in widgets_of(node.info, values):
            if widget.name is None:
                values.append("fixed")  # The same seed again, so that runs can be compared.
            elif widget.name in inputs:
                values.append(inputs.pop(widget.name))
                lacking = 0
                continue
            elif "default" in widget.options:
                values.append(widget.options["default"])
            elif choices_of(widget.spec):
                values.append((choices_of(widget.spec) or [])[0])
            else:
                raise WorkflowError(f"{node.kind} needs a value for {widget.name}.")
            lacking = lacking + 1 if widget.may_lack else 0
        # Older servers lack some of the newest optional widgets.
        keep = node.kind.startswith(OURS)
        return values if keep or not lacking else values[:-lacking]

    def _connect(self, node: Node, name: str, spec: list[Any], source: Any) -> None:
        entry: dict[str, Any] = {"name": name, "type": plain(spec[0]), "link": None}
        if source is None and name in node.info["input"].get("optional", {}):
            entry["shape"] = 7  # How the page draws an input that may stay empty.
        node.saved["inputs"].append(entry)
        if source is None:
            return
        if isinstance(source, Node):
            slots = [
                slot for slot, given in enumerate(source.info["output"]) if fits(given, spec[0])
            ]
            if not slots:
                raise WorkflowError(f"{source.kind} has nothing for {name} of {node.kind}.")
            source = source[slots[0]]
        link = len(self.links) + 1
        entry["link"] = link
        source.node.saved["outputs"][source.slot].setdefault("links", []).append(link)
        slot = len(node.saved["inputs"]) - 1
        self.links.append([link, source.node.id, source.slot, node.id, slot, plain(source.type)])

    def build(self) -> dict[str, Any]:
        """The finished workflow.

        Raises
        ------
        WorkflowError
            With every mistake that `workflow_check` finds.
        """
        groups = self.lay_out()
        workflow = {
            "id": str(uuid.uuid5(uuid.NAMESPACE_DNS, f"dit-acceleration.{self.name}")),
            "revision": 0,
            "last_node_id": len(self.nodes),
            "last_link_id": len(self.links),
            "nodes": [node.saved for node in self.nodes],
            "links": self.links,
            "groups": groups,
            "config": {},
            "extra": {"ds": {"scale": 0.6, "offset": [40, 120]}},
            "version": 0.4,
        }
        wrong = problems(workflow, self.info)
        if wrong:
            raise WorkflowError(f"{self.name}:\n" + "\n".join(wrong))
        return workflow

    def lay_out(self) -> list[dict[str, Any]]:
        """Give every node its place; returns the groups around them."""
        saved: list[dict[str, Any]] = []
        left = right = top = 0
        for number, group in enumerate(self.groups, start=1):
            if not group.below:
                left, top = right, 0
            y = top + GROUP_TITLE
            for node in group.nodes:
                y += TITLE
                node.saved["pos"] = [left + PADDING, y]
                y += node.saved["size"][1] + GAP
            frame = [left, top, group.width + 2 * PADDING, y - GAP + PADDING - top]
            saved.append(
                {
                    "id": number,
                    "title": group.title,
                    "bounding": frame,
                    "color": group.color,
                    "font_size": 24,
                    "flags": {},
                }
            )
            top += frame[3] + GAP
            right = max(right, left + frame[2] + GAP)
        return saved


def words(name: str) -> str:
    """A name of code as words: ``EmptySD3LatentImage`` is ``Empty SD3 Latent Image``."""
    if " " in name:
        return name
    return re.sub(r"(?<=[a-z])(?=[A-Z])|(?<=[A-Z0-9]{2})(?=[A-Z][a-z])", " ", name)


def _saved(node: Node, extra: Mapping[str, Any]) -> dict[str, Any]:
    names = zip(node.info["output_name"], node.info["output"], strict=True)
    return {
        "id": node.id,
        "type": node.kind,
        "pos": [0, 0],
        "size": [0, 0],
        "flags": {},
        "order": node.id - 1,
        "mode": 0,
        "inputs": [],
        "outputs": [{"name": name, "type": plain(kind)} for name, kind in names],
        "properties": {} if node.kind == "MarkdownNote" else {"Node name for S&R": node.kind},
        **extra,
    }


def _height(node: Node) -> int:
    """Room that a node takes, in both renderers of the page."""
    sockets = max(len(node.saved["inputs"]), len(node.saved["outputs"]))
    height = sockets * SOCKET_ROW + 12
    for widget in widgets_of(node.info, node.saved["widgets_values"]):
        if is_hidden(widget.spec):
            continue
        height += TEXT_ROWS if widget.options.get("multiline") else WIDGET_ROW
    strip = STRIP if node.kind.startswith(OURS) else 0
    return height + SHOWN.get(node.kind, strip)


def as_json(workflow: Mapping[str, Any]) -> str:
    """A workflow as text with one node or link a line, so that changes can be read."""
    lines = []
    for key, value in workflow.items():
        if key in ("nodes", "links", "groups"):
            rows = ",\n".join("    " + json.dumps(row, ensure_ascii=False) for row in value)
            lines.append(f"  {json.dumps(key)}: [\n{rows}\n  ]")
        else:
            lines.append(f"  {json.dumps(key)}: {json.dumps(value, ensure_ascii=False)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"

"""Turns a saved workflow (UI format) into the prompt that the server runs (API format).

This is what ComfyUI's web page does before it queues a workflow, for plain graphs: no subgraphs
and no reroutes. It makes an example workflow testable without a browser.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

Prompt = dict[str, dict[str, Any]]

# Node modes of the web page's graph library.
MUTED = 2
BYPASSED = 4
NOTES = ("Note", "MarkdownNote")
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"
WIDGETS = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", DYNAMIC_COMBO)
AFTER_GENERATE = ("increment", "decrement", "randomize")


class WorkflowError(ValueError):
    """The workflow does not fit the nodes of the server."""


def to_prompt(workflow: Mapping[str, Any], object_info: Mapping[str, Any]) -> Prompt:
    """Convert a workflow with the server's description of its nodes.

    Raises
    ------
    WorkflowError
        If a node class is unknown, or its saved values do not fit its inputs.
    """
    # A link is saved as [id, source node, source slot, target node, target slot, type].
    sources = {link[0]: [str(link[1]), link[2]] for link in workflow["links"]}
    prompt: Prompt = {}
    for node in workflow["nodes"]:
        kind = node["type"]
        if kind in NOTES:
            continue
        if node.get("mode", 0) in (MUTED, BYPASSED):
            raise WorkflowError(f"Node {node['id']} ({kind}) is muted or bypassed.")
        if kind not in object_info:
            raise WorkflowError(f"Node {node['id']}: the server has no node class {kind}.")
        linked = {
            entry["name"]: sources[entry["link"]]
            for entry in node.get("inputs", [])
            if entry.get("link") is not None
        }
        inputs = {**widget_inputs(node, object_info[kind]), **linked}
        title = node.get("title") or object_info[kind].get("display_name") or kind
        prompt[str(node["id"])] = {"class_type": kind, "inputs": inputs, "_meta": {"title": title}}
    return prompt


def widget_inputs(node: Mapping[str, Any], info: Mapping[str, Any]) -> dict[str, Any]:
    """Name the saved widget values, which are a plain list in the order of the node's inputs.

    Optional widgets at the end may lack a value, as in a workflow saved before they existed.
    """
    values = list(node.get("widgets_values") or [])
    widgets = list(widgets_of(info, values))
    while len(widgets) > len(values) and widgets[-1].may_lack:
        widgets.pop()
    names = [widget.name for widget in widgets]
    if len(values) != len(names):
        raise WorkflowError(
            f"Node {node['id']} ({node['type']}) has {len(values)} widget values for "
            f"{len(names)} widgets: {', '.join(name or 'control after generate' for name in names)}"
        )
    return {name: value for name, value in zip(names, values, strict=True) if name}


@dataclass(frozen=True)
class Widget:
    """A widget of a node; one without a name is no input of it, but the page's own."""

    name: str | None
    spec: list[Any]
    may_lack: bool = False

    @property
    def options(self) -> Mapping[str, Any]:
        return options_of(self.spec)


def widgets_of(info: Mapping[str, Any], values: Sequence[Any] = ()) -> Iterator[Widget]:
    """Yield a node's widgets in order.

    `values` are those saved so far: what a widget with sub-inputs shows depends on its choice.
    """
    optional = info["input"].get("optional", {})
    queue = [(name, spec, name in optional) for name, spec in inputs_of(info)]
    position = 0
    while queue:
        name, spec, lacks = queue.pop(0)
        options = options_of(spec)
        if not is_widget(spec):
            continue
        yield Widget(name, spec, lacks and ("default" in options or is_hidden(spec)))
        value = values[position] if position < len(values) else None
        position += 1
        if options.get("control_after_generate"):
            # The page puts "what to do with the seed afterwards" behind it.
            yield Widget(None, ["COMBO", {"options": ["fixed", *AFTER_GENERATE]}])
            position += 1
        for choice in options.get("options", ()) if spec[0] == DYNAMIC_COMBO else ():
            if choice["key"] == value:
                below = inputs_of(choice["inputs"])
                queue[:0] = [(f"{name}.{sub}", sub_spec, lacks) for sub, sub_spec in below]


def inputs_of(info: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the inputs of a node class, or of a choice, in the order in which it shows them."""
    for group in ("required", "optional"):
        specs = info.get("input", info).get(group, {})
        for name in info.get("input_order", {}).get(group, specs):
            yield name, specs[name]


def options_of(spec: Sequence[Any]) -> Mapping[str, Any]:
    """What an input's description says beside its type."""
    return spec[1] if len(spec) > 1 else {}


def choices_of(spec: Sequence[Any]) -> list[Any] | None:
    """The values an input offers to choose from; None if it is no choice."""
    kind, options = spec[0], options_of(spec)
    if isinstance(kind, list):
        return kind
    if kind == DYNAMIC_COMBO:
        return [choice["key"] for choice in options["options"]]
    return list(options["options"]) if kind == "COMBO" else None


def is_widget(spec: Sequence[Any]) -> bool:
    """Whether an input has a widget: a list of choices, or a simple value."""
    kind, options = spec[0], options_of(spec)
    if options.get("forceInput"):
        return False
    return isinstance(kind, list) or options.get("widgetType", kind) in WIDGETS


def is_hidden(spec: Sequence[Any]) -> bool:
    """Whether the page keeps a widget from sight: an input that is only there for old workflows."""
    return bool(options_of(spec).get("hidden"))


def downstream(prompt: Prompt, start: str) -> set[str]:
    """The ids of a node and of all nodes that depend on it."""
    found = {start}
    while True:
        more = {
            node_id
            for node_id, node in prompt.items()
            if node_id not in found
            and any(isinstance(v, list) and v and v[0] in found for v in node["inputs"].values())
        }
        if not more:
            return found
        found |= more


def find(prompt: Prompt, kind: str) -> list[str]:
    """The ids of all nodes of a class."""
    return [node_id for node_id, node in prompt.items() if node["class_type"] == kind]

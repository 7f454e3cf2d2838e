"""Turns a saved workflow (UI format) into the prompt that the server runs (API format).

This is what ComfyUI's web page does before it queues a workflow, for plain graphs: no subgraphs,
no reroutes, no inputs with sub-inputs. It makes an example workflow testable without a browser.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Prompt = dict[str, dict[str, Any]]

# Node modes of the web page's graph library.
MUTED = 2
BYPASSED = 4
NOTES = ("Note", "MarkdownNote")


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
    """Name the saved widget values, which are a plain list in the order of the node's inputs."""
    values = list(node.get("widgets_values") or [])
    names = list(widget_names(info))
    if len(values) != len(names):
        raise WorkflowError(
            f"Node {node['id']} ({node['type']}) has {len(values)} widget values for "
            f"{len(names)} widgets: {', '.join(name or 'control after generate' for name in names)}"
        )
    return {name: value for name, value in zip(names, values, strict=True) if name}


def widget_names(info: Mapping[str, Any]) -> Iterator[str | None]:
    """Yield the names of a node's widgets in order; None for one that is no input of the node."""
    for name, spec in inputs_of(info):
        options = spec[1] if len(spec) > 1 else {}
        if is_widget(spec[0]) and not options.get("forceInput"):
            yield name
            if options.get("control_after_generate"):
                yield None  # The page puts "what to do with the seed afterwards" behind it.


def inputs_of(info: Mapping[str, Any]) -> Iterator[tuple[str, list[Any]]]:
    """Yield the inputs of a node class in the order in which it shows them."""
    for group in ("required", "optional"):
        specs = info["input"].get(group, {})
        for name in info.get("input_order", {}).get(group, specs):
            yield name, specs[name]


def is_widget(kind: Any) -> bool:
    """Whether an input of this type has a widget: a list of choices, or a simple value."""
    return isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")


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

"""One graph with every preset of Performance Mode: what is queued, and the table that comes of it.

Graphs are the host's prompts in API format: node ids with ``class_type`` and ``inputs``, of which
links are ``[node id, output]``.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ..errors import AccelerationError, shown
from .settings import PRESET_SPEEDUPS

MODE = "AccelPerformanceMode"
REPORT = "AccelReport"
COMPARE = "AccelCompareQuality"

BASELINE = "off"
PRESETS = (BASELINE, *PRESET_SPEEDUPS)

WARM_UP = "warm-up"
"""Name of the run before the first one: it loads models and compiles, and nobody is shown it."""

REPORT_ID = "dit_acceleration_report_"
"""Ids of the reports that are added begin with this."""

FORMAT = 1
"""Version of the result's fields."""

Graph = dict[str, dict[str, Any]]
Types = Callable[[str], Sequence[str]]
"""The output types of a node class; none where it is not known."""


def runs_of(graph: Any, presets: Iterable[str], types: Types) -> list[dict[str, Any]]:
    """The prompts to queue, one after the other: ``name`` and ``prompt``.

    Every Performance Mode is set to the preset, and a report is read after every sampler; nothing
    else differs from the graph that was given, its seeds least of all. The warm-up samples only,
    with as few computed evaluations as there can be.

    Raises
    ------
    AccelerationError
        When the graph holds nothing to compare.
    """
    checked = _checked(graph)
    names = _names(presets)
    reports = _reports(checked, types)
    warm_up = _set(checked | reports, approximation="target", target_speedup=10.0)
    runs = [{"name": WARM_UP, "prompt": _needed(warm_up, reports)}]
    for name in names:
        runs.append({"name": name, "prompt": _set(checked | reports, approximation=name)})
    return runs


def _checked(graph: Any) -> Graph:
    if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
        raise AccelerationError(
            "This is a workflow as the page saves it: export it for the API (in the menu: File, "
            "Export (API)) and give that file."
        )
    nodes = graph.values() if isinstance(graph, dict) else ()
    if not nodes or not all(
        isinstance(n, dict) and isinstance(n.get("inputs"), dict) for n in nodes
    ):
        raise AccelerationError(
            "This is no workflow in API format: it must be a JSON object of nodes, each with "
            "class_type and inputs."
        )
    return dict(graph)


def _names(presets: Iterable[str]) -> list[str]:
    asked = list(presets)
    unknown = [name for name in asked if name not in PRESETS]
    if unknown:
        raise AccelerationError(
            f"There is no preset {shown(unknown[0])}: choose of {', '.join(PRESETS)}."
        )
    # In their order and with what they are compared to.
    return [name for name in PRESETS if name == BASELINE or name in asked]


def _set(graph: Graph, **values: Any) -> Graph:
    """A copy in which every Performance Mode has these values."""
    found = copy.deepcopy(graph)
    for key in modes_of(found):
        found[key]["inputs"].update(values)
    return found


def modes_of(graph: Graph) -> list[str]:
    """Ids of the Performance Modes of a graph."""
    return [key for key, node in graph.items() if node.get("class_type") == MODE]


def _reports(graph: Graph, types: Types) -> Graph:
    """A report for every sampler behind a Performance Mode."""
    if not modes_of(graph):
        raise AccelerationError(
            "This workflow holds no Performance Mode: put one between the model loader and the "
            "sampler."
        )
    found: Graph = {}
    for sampler, output in _samplers(graph, types):
        inputs = {"model": [_mode_before(graph, sampler), 0], "after": [sampler, output]}
        found[f"{REPORT_ID}{len(found)}"] = {"class_type": REPORT, "inputs": inputs}
    if not found:
        raise AccelerationError(
            "No node after Performance Mode takes its MODEL and gives a LATENT: connect it to a "
            "sampler."
        )
    return found


def _samplers(graph: Graph, types: Types) -> list[tuple[str, int]]:
    """Nodes behind a Performance Mode that take a model or a guider and give a latent."""
    behind = downstream(graph, modes_of(graph))
    found = []
    for key in behind:
        given = list(types(graph[key].get("class_type", "")))
        links = [
            link for link in _links(graph[key]) if str(link[0]) in behind or _is_mode(graph, link)
        ]
        taken = {_type_of(graph, link, types) for link in links}
        if taken & {"MODEL", "GUIDER"} and "LATENT" in given:
            found.append((key, given.index("LATENT")))
    return found


def _is_mode(graph: Graph, link: Sequence[Any]) -> bool:
    return graph.get(str(link[0]), {}).get("class_type") == MODE


def _type_of(graph: Graph, link: Sequence[Any], types: Types) -> str:
    given = types(graph[str(link[0])].get("class_type", ""))
    return given[link[1]] if link[1] < len(given) else ""


def _links(node: Mapping[str, Any]) -> list[Sequence[Any]]:
    """The links that go into a node."""
    values = node["inputs"].values()
    return [v for v in values if isinstance(v, list) and len(v) == 2 and isinstance(v[1], int)]


def _mode_before(graph: Graph, key: str) -> str:
    """The nearest Performance Mode before a node that is behind one."""
    ahead = [key]
    for each in ahead:
        if graph[each].get("class_type") == MODE:
            return each
        found = (str(link[0]) for link in _links(graph[each]))
        ahead += [source for source in found if source in graph and source not in ahead]
    raise AssertionError(key)


def _needed(graph: Graph, wanted: Iterable[str]) -> Graph:
    """The nodes that these and what is before them consist of."""
    ahead = list(wanted)
    for each in ahead:
        found = (str(link[0]) for link in _links(graph[each]))
        ahead += [source for source in found if source in graph and source not in ahead]
    return {key: node for key, node in graph.items() if key in ahead}


def downstream(graph: Graph, sources: Sequence[str]) -> list[str]:
    """Ids of the nodes that get something of these nodes, in the order of the graph.

    What Compare Quality and Acceleration Report draw is no picture of the model, so neither they
    nor what they draw count.
    """
    reached = set(sources)
    while True:
        more = {
            key
            for key, node in graph.items()
            if any(_carries(graph, link) and str(link[0]) in reached for link in _links(node))
        } - reached
        if not more:
            left_out = {*sources, *(key for key in graph if _kind(graph, key) in (COMPARE, REPORT))}
            return [key for key in graph if key in reached - left_out]
        reached |= more


def _carries(graph: Graph, link: Sequence[Any]) -> bool:
    """Whether a link carries what the model made on."""
    kind = _kind(graph, str(link[0]))
    return kind != COMPARE and (kind != REPORT or link[1] == 0)


def _kind(graph: Graph, key: str) -> str:
    return str(graph.get(key, {}).get("class_type", ""))


# ------------------------------------------------------------------- results


def row_of(name: str, reports: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What the reports of a run's samplers (Acceleration Report's JSON) say together."""
    reports = _once(reports)
    evaluations = sum(report.get("evaluations", 0) for report in reports)
    skipped = sum(report.get("skipped", 0) for report in reports)
    modes = [report.get("performance", {}) for report in reports]
    notices = [
        n for report in reports for n in [report.get("sentence"), *report.get("notices", ())]
    ]
    return {
        "preset": name,
        "seconds": sum(mode.get("seconds", 0.0) for mode in modes),
        "evaluations": evaluations or None,
        "computed": evaluations - skipped if evaluations else None,
        "notices": list(dict.fromkeys(filter(None, notices))),
    }


def _once(reports: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """One report a sampler: a node that only measures may take a MODEL and give a LATENT, too."""
    found = {report.get("sampled_by") or number: report for number, report in enumerate(reports)}
    return list(found.values())


def compared(rows: Sequence[dict[str, Any]], quality: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Rows with their speed and their nearness to the first one, which skips nothing.

    Parameters
    ----------
    rows
        As ``row_of`` makes them.
    quality
        ``Comparison.as_dict()`` by preset; none for the first.
    """
    full = rows[0]
    found = []
    for row in rows:
        seconds, near = row["seconds"], quality.get(row["preset"], {})
        known = {name: near.get(name) for name in ("psnr", "ssim", "lpips", "words")}
        found.append(
            {
                **row,
                "speedup": full["seconds"] / seconds if seconds else None,
                **known,
                "identical": bool(near.get("identical")),
            }
        )
    return found


HEAD = ("preset", "seconds", "speed", "computed", "PSNR", "SSIM")


def table(rows: Sequence[Mapping[str, Any]]) -> list[list[str]]:
    """The rows in words, without a head."""
    return [
        [
            row["preset"],
            f"{row['seconds']:.2f} s",
            f"{row['speedup']:.2f}×" if row["speedup"] else "–",
            f"{row['computed']} of {row['evaluations']}" if row["evaluations"] else "all",
            *_nearness(row),
        ]
        for row in rows
    ]


def _nearness(row: Mapping[str, Any]) -> tuple[str, str]:
    if row["preset"] == BASELINE:
        return "–", "–"
    if row["identical"]:
        return "identical", "1.0000"
    psnr, ssim = row["psnr"], row["ssim"]
    return (
        f"{psnr:.1f} dB" if psnr is not None else "–",
        f"{ssim:.4f}" if ssim is not None else "–",
    )


def markdown(result: Mapping[str, Any]) -> str:
    """The result as a table for an issue or a document."""
    lines = [list(HEAD), ["---", *["---:"] * (len(HEAD) - 1)], *table(result["rows"])]
    text = "\n".join(f"| {' | '.join(cells)} |" for cells in lines)
    notes = "".join(f"\n- {note}" for note in result["notes"])
    return f"{text}\n\n{title(result)}{notes and chr(10) + notes}\n"


def title(result: Mapping[str, Any]) -> str:
    """The model, how it was sampled, and where."""
    model, place = result["model"], result["environment"]
    how = [model.get("family"), model.get("sampler"), f"{model.get('steps')} steps"]
    where = [place["device"], f"ComfyUI {place['comfyui']}", f"pack {place['pack']}"]
    return ", ".join(str(part) for part in [*how, *where] if part) + "."

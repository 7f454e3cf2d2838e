"""Tables of fidelity on the demo models: pictures, video, compact residuals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from table_markdown import Rows, each_cfg, load, machine, markdown

SAMPLER, DEFAULT = "euler", "R 0.24 MC 3"

VIDEO_FORECASTS = {
    "hold": "hold",
    "taylorseer 1": "TaylorSeer 1",
    "trajectory 1": "trajectory 1",
    "blend": "blend",
    "hold, corrected": "hold, corrected",
    "taylorseer 1, corrected": "TaylorSeer 1, corrected",
    "blend, corrected": "blend, corrected",
}

FORECASTS = {
    "none": "hold",
    "taylorseer 1": "TaylorSeer 1",
    "taylorseer 2": "TaylorSeer 2",
    "trajectory 1": "trajectory 1",
    "trajectory 2": "trajectory 2",
    "blend": "blend",
    "none, corrected": "hold, corrected",
    "taylorseer 1, corrected": "TaylorSeer 1, corrected",
    "blend, corrected": "blend, corrected",
}


def measured(rows: Rows, names: Mapping[str, str]) -> dict[str, str]:
    """Of the columns of a table those that some row fills."""
    there = {row["forecast"] for row in rows}
    return {key: name for key, name in names.items() if key in there}


def groups(rows: Rows) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """Rows of a decision by forecast, each a list with one row a guidance scale."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in sorted(rows, key=lambda r: r["cfg"]):
        if row["sampler"] == SAMPLER:
            found.setdefault(row["decision"], {}).setdefault(row["forecast"], []).append(row)
    return found


def is_plain(decision: str) -> bool:
    return decision.startswith("plain")


def quality(results: str = "quality") -> str:
    """What is saved and how near the picture stays, a line for every way to decide."""
    data = load(results)
    found = groups(data["rows"])
    scales = sorted({row["cfg"] for row in data["rows"]})
    total = max(row["evaluations"] for row in data["rows"])
    columns = measured(data["rows"], FORECASTS)
    head = ["setting", f"computed of {total:g}", "speed-up", *columns.values()]
    lines = []
    for decision in sorted(found, key=is_plain):
        forecasts = found[decision]
        first = next(iter(forecasts.values()))
        psnr = [each_cfg(forecasts.get(name, []), "psnr", ".1f") for name in columns]
        computed, speedup = each_cfg(first, "computed", ".1f"), each_cfg(first, "speedup", ".2f")
        name = f"{decision} (default)" if decision == DEFAULT else decision
        lines.append([name, computed, speedup, *psnr])
    caption = (
        f"PSNR in dB of the latents to the full run of {total:g} steps, euler, mean of "
        f"{data['prompts'] * data['seeds']} pictures, cfg "
        f"{' / '.join(f'{s:g}' for s in scales)}; more is nearer. Computed and speed-up are those "
        "of “hold”, which keeps the last residual as it is. Plain rows sample with fewer steps."
    )
    return f"{markdown(head, lines)}\n\n{caption} {machine(data)}"


def tea_cache() -> str:
    """The same of TeaCache, calibrated and with raw thresholds."""
    return quality("tea_cache")


def video() -> str:
    """What caching saves on the video model, each line beside plain sampling of the same work."""
    data = load("video")
    columns = measured(data["rows"], VIDEO_FORECASTS)
    head = ["technique", "graph", "computed of 28", "speed-up", *columns.values(), "plain"]
    lines = []
    keys = ("technique", "decision", "graph")
    accelerated = [row for row in data["rows"] if row["technique"] != "plain"]
    for technique, decision, graph in sorted(
        {tuple(row[key] for key in keys) for row in accelerated},
        key=lambda line: (line[0], line[2], line[1]),
    ):
        rows = [r for r in accelerated if tuple(r[k] for k in keys) == (technique, decision, graph)]
        by = {f: [r for r in rows if r["forecast"] == f] for f in columns}
        timed = by["trajectory 1"]
        lines.append(
            [f"{technique}, {decision}", graph, each_cfg(timed, "computed", ".1f")]
            + [each_cfg(timed, "speedup", ".2f")]
            + [each_cfg(by[name], "psnr", ".1f") for name in columns]
            + [each_cfg(timed, "plain_psnr", ".1f")]
        )
    scales = sorted({row["cfg"] for row in data["rows"]})
    caption = (
        f"PSNR in dB of the latents to the full run of 28 steps, euler, mean of "
        f"{data['prompts'] * data['seeds']} videos, cfg {' / '.join(f'{s:g}' for s in scales)}. "
        "“Two samplers” is the graph of Wan 2.2: a high-noise MODEL for the first "
        f"{data['switch']} steps and a low-noise MODEL for the rest. Computed, speed-up and plain "
        "belong to “trajectory 1”; plain is plain sampling with as many steps as it computed, "
        "between two step counts by linear interpolation. TeaCache is calibrated on one video."
    )
    return f"{markdown(head, lines, texts=2)}\n\n{caption} {machine(data)}"


def memory() -> str:
    """What compact residuals cost and save."""
    data = load("memory")
    rows = [row for row in data["rows"] if row["forecast"] in FORECASTS]
    forecasts = list(dict.fromkeys(r["forecast"] for r in rows))
    lines = []
    for name in dict.fromkeys(r["storage"] for r in rows):
        mine = [r for r in rows if r["storage"] == name]
        peaks = [f"{r['peak_bytes'] / 1024:.0f}" for r in mine if r["cfg"] == mine[0]["cfg"]]
        cells = []
        for forecast, peak in zip(forecasts, peaks, strict=True):
            found = [r["psnr_lowest"] for r in mine if r["forecast"] == forecast]
            nearness = ["equal" if psnr is None else f"{psnr:.1f}" for psnr in found]
            cells.append(f"{' / '.join(dict.fromkeys(nearness))} ({peak} KiB)")
        lines.append([f"`{name}`", *cells])
    columns = ["`residual_device`", *(FORECASTS[f] for f in forecasts)]
    caption = (
        "PSNR in dB to the same run with residuals kept as they are, the lowest of "
        f"{data['prompts']} pictures, cfg {' / '.join(f'{c:g}' for c in cfgs(rows))}, "
        f"{data['steps']} steps, default threshold; in brackets the bytes held at peak at cfg "
        f"{rows[0]['cfg']:g}, with the first blocks' residual, which always stays as it is. The "
        "model computes in float32; on a bf16 model bf16 saves nothing and fp8 half."
    )
    return f"{markdown(columns, lines)}\n\n{caption} {machine(data)}"


def cfgs(rows: Rows) -> list[float]:
    """The guidance scales of some rows, in order."""
    return list(dict.fromkeys(r["cfg"] for r in rows))

"""Writes the measured figures into the READMEs, between the markers of each table.

Reads ``benchmarks/results/*.json`` and replaces what stands between ``<!-- table:NAME -->`` and
``<!-- /table:NAME -->`` in ``README.md`` and ``benchmarks/README.md``. ``--check`` only says which
file is not up to date.
"""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

# Also where another script loads this file by its path.
sys.path.append(str(Path(__file__).resolve().parent))

from readme_attention import attention, attention_brief
from readme_full_size import full_size, full_size_brief, gpu_said
from readme_markdown import NONE, Rows, load, machine, markdown

ROOT = Path(__file__).resolve().parent.parent
FILES = (ROOT / "README.md", ROOT / "benchmarks" / "README.md")
SAMPLER, DEFAULT = "euler", "R 0.24 MC 3"
# Tables that other scripts write.
ELSEWHERE = ("families", "presets", "environment")

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


def each_cfg(rows: Rows, key: str, form: str) -> str:
    """A figure for every guidance scale, such as ``"40.8 / 39.2"``."""
    return " / ".join(format(row[key], form) for row in rows) if rows else NONE


def groups(rows: Rows) -> dict[str, dict[str, list[Mapping[str, Any]]]]:
    """Rows of a decision by forecast, each a list with one row a guidance scale."""
    found: dict[str, dict[str, list[Mapping[str, Any]]]] = {}
    for row in sorted(rows, key=lambda r: r["cfg"]):
        if row["sampler"] == SAMPLER:
            found.setdefault(row["decision"], {}).setdefault(row["forecast"], []).append(row)
    return found


def is_plain(decision: str) -> bool:
    return decision.startswith("plain")


def quality() -> str:
    """What is saved and how near the picture stays, a line for every way to decide."""
    data = load("quality")
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


def quality_full() -> str:
    """Every measured row with every figure."""
    data = load("quality")
    keys = {
        "computed": ".1f",
        "seconds": ".3f",
        "speedup": ".2f",
        "psnr": ".1f",
        "ssim": ".4f",
    }
    columns = ["setting", "forecast", "sampler", "cfg", *keys]
    lines = []
    for row in sorted(data["rows"], key=lambda r: is_plain(r["decision"])):
        forecast = NONE if is_plain(row["decision"]) else FORECASTS[row["forecast"]]
        lines.append(
            [row["decision"], forecast, row["sampler"], f"{row['cfg']:g}"]
            + [format(row[key], form) if key in row else NONE for key, form in keys.items()]
        )
    return f"{markdown(columns, lines, texts=3)}\n\n{machine(data)}"


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


def overhead() -> str:
    """What the acceleration itself costs."""
    data = load("overhead")
    columns = ["", "settings", "cfg", "full", "measured", "compared with", "extra, % of full"]
    lines = []
    for r in data["rows"]:
        times = [f"{r[key]:.1f} ms" for key in ("full_ms", "ms", "compared_ms")]
        extra = f"{100 * r['extra_share_of_full']:+.1f} %"
        lines.append([r["kind"], r["settings"], f"{r['cfg']:g}", *times, extra])
    caption = (
        "Time of one evaluation of the demo model. With nothing skipped it is compared with the "
        "plain model, a skipped evaluation with the same model built with only the blocks that it "
        f"runs. Medians of {data['rounds']} interleaved rounds."
    )
    return f"{markdown(columns, lines, texts=2)}\n\n{caption} {machine(data)}"


def profiler() -> str:
    """What Profile Sampling costs, beside two equal runs."""
    data = load("profiler")
    columns = ["", "cfg", "plain", "measured", "ratio", "middle half of the ratios"]
    lines = []
    for r in data["rows"]:
        times = [f"{r[key]:.1f} ms" for key in ("plain_ms", "ms")]
        spread = f"{r['ratio_low']:.3f} to {r['ratio_high']:.3f}"
        lines.append([r["variant"], f"{r['cfg']:g}", *times, f"{r['ratio']:.3f}", spread])
    caption = (
        "Time of one evaluation of the demo model, each paired with the plain model in the same "
        f"round; medians of {data['rounds']} rounds. “plain again” is the plain model once more: "
        "what lies within its spread is not told from chance. A caching run that nobody profiles "
        f"carries two ranges that do nothing, {1000 * data['idle_ranges_ms_an_evaluation']:.1f} µs "
        "an evaluation."
    )
    return f"{markdown(columns, lines)}\n\n{caption} {machine(data)}"


def memory() -> str:
    """What compact residuals cost and save."""
    data = load("memory")
    rows = data["rows"]
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


def attention_overhead() -> str:
    """What Attention Backend costs a call."""
    data = load("attention_overhead")
    columns = ["backend", "least", "most"]
    lines = []
    for name in dict.fromkeys(r["backend"] for r in data["rows"]):
        extra = [r["overhead_us"] for r in data["rows"] if r["backend"] == name]
        lines.append([f"`{name}`", f"{min(extra):.1f} µs", f"{max(extra):.1f} µs"])
    caption = (
        "Extra time of one attention call against ComfyUI's own function, over both layouts, with "
        f"and without a mask. Medians of {data['rounds']} interleaved rounds of "
        f"{data['calls_a_round']} calls; the limit is {data['limit_us']:g} µs."
    )
    return f"{markdown(columns, lines)}\n\n{caption} {machine(data)}"


def performance() -> str:
    """What the presets of Performance Mode save and cost on both demo models."""
    data = load("performance")
    modes = list(dict.fromkeys(mode for r in data["rows"] for mode in r.get("speedup", ())))
    columns = ["model", "steps", "preset", "computed", *(f"speed-up, `{mode}`" for mode in modes)]
    columns += ["PSNR", "plain, as many steps"]
    lines = []
    keys = ("model", "steps", "approximation")
    for line in dict.fromkeys(tuple(row[key] for key in keys) for row in data["rows"]):
        rows = sorted(
            (r for r in data["rows"] if tuple(r[key] for key in keys) == line),
            key=lambda r: r["cfg"],
        )
        model, steps, preset = line
        lines.append([model, f"{steps}", f"`{preset}`", each_cfg(rows, "computed", ".1f")])
        speeds = [row.get("speedup", {}) for row in rows]
        lines[-1] += [each_cfg([s for s in speeds if m in s], m, ".2f") for m in modes]
        lines[-1] += [each_cfg(rows, key, ".1f") for key in ("psnr", "plain_psnr")]
    scales = " / ".join(f"{s:g}" for s in sorted({row["cfg"] for row in data["rows"]}))
    caption = (
        f"euler, cfg {scales}; PSNR in dB of the latents to the full run, mean of up to "
        f"{data['prompts']} prompts. “plain” samples with as many steps as were computed. "
        f"{other_modes(data['rows'], modes)} Speed-ups are of one prompt, sampled in "
        f"turns with the full run step by step; every step the median of {data['rounds']} rounds."
    )
    return f"{markdown(columns, lines, texts=3)}\n\n{caption} {machine(data)}"


def other_modes(rows: Rows, modes: Sequence[str]) -> str:
    """How far the latents of the other modes are from those of the first."""
    said = []
    for mode in modes[1:]:
        timed = [row["from_first"] for row in rows if "from_first" in row]
        found = [row[mode] for row in timed if mode in row]
        off = [value for value in found if value is not None]
        equal = "bit for bit the same" if not off else f"the same to {min(off):.0f} dB or more"
        said.append(f"`{mode}` {equal}")
    if not said:
        return ""
    return (
        f"PSNR is that of `{modes[0]}`; the latents of the timed runs are in {', '.join(said)}. "
        "On a CPU the modes move no weights, and `speed` tries the exact attention kernels."
    )


def rivals_of(row: Mapping[str, Any], rows: Rows) -> list[Mapping[str, Any]]:
    """What other ways reach with at most one evaluation more, the nearest picture first."""
    same = [
        other
        for other in rows
        if all(other[key] == row[key] for key in ("steps", "sampler"))
        and other["kind"] != "target"
        and other["computed"] <= row["computed"] + 1
    ]
    return sorted(same, key=lambda other: -other["psnr"])


def target() -> str:
    """A target speed-up beside the best of the other ways."""
    data = load("target")
    columns = ["sampler", "steps", "target", "computed", "PSNR", "best other way", "its computed"]
    columns += ["its PSNR"]
    lines = []
    for row in (r for r in data["rows"] if r["kind"] == "target"):
        best = [NONE] * 3
        for rival in rivals_of(row, data["rows"])[:1]:
            name = f"{rival['kind']} {rival['name']}"
            best = [name, f"{rival['computed']:.1f}", f"{rival['psnr']:.1f}"]
        ours = [f"{row['computed']:.1f} of {row['evaluations']:g}", f"{row['psnr']:.1f}"]
        lines.append([row["sampler"], f"{row['steps']}", f"{row['name']}×", *ours, *best])
    *first, most = sorted({row["pictures"] for row in data["rows"]})
    look = " or ".join(str(pictures) for pictures in first)
    caption = (
        f"PSNR in dB of the latents to the full run, mean of {most} pictures, cfg 1. "
        "The best other way is the nearest picture with at most one evaluation more, among the "
        "static SCM presets, eight thresholds of DBCache and of TeaCache, ComfyUI's EasyCache at "
        "four thresholds (in bfloat16, compared with the full run in bfloat16) and plain sampling "
        "with fewer steps."
    )
    if first:
        caption += f" Of those that a first look at {look} pictures put behind three others, no "
        caption += "more was measured."
    return f"{markdown(columns, lines, texts=3)}\n\n{caption} {machine(data)}"


TABLES: dict[str, Callable[[], str]] = {
    "quality": quality,
    "quality-full": quality_full,
    "video": video,
    "overhead": overhead,
    "attention": attention,
    "attention-brief": attention_brief,
    "attention-overhead": attention_overhead,
    "profiler": profiler,
    "performance": performance,
    "target": target,
    "memory": memory,
    "full-size": full_size,
    "full-size-brief": full_size_brief,
    "gpu-said": gpu_said,
}


def filled(text: str, tables: Mapping[str, Callable[[], str]] = TABLES) -> str:
    """The text with every table between its markers replaced.

    Raises
    ------
    ValueError
        When a marker names no table or is not closed.
    """
    for name in re.findall(r"<!-- table:([\w-]+) -->", text):
        if name in ELSEWHERE:
            continue
        begin, end = f"<!-- table:{name} -->", f"<!-- /table:{name} -->"
        if name not in tables:
            raise ValueError(f"{begin} names no table; choose of {', '.join(tables)}.")
        head, _, rest = text.partition(begin)
        _, closed, tail = rest.partition(end)
        if not closed:
            raise ValueError(f"{begin} is not closed by {end}.")
        text = f"{head}{begin}\n{tables[name]()}\n{end}{tail}"
    return text


def outdated(files: Sequence[Path] = FILES) -> list[Path]:
    """Files whose tables differ from the results."""
    found = []
    for path in files:
        if path.exists():
            text = path.read_text(encoding="utf-8")
            if filled(text) != text:
                found.append(path)
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--check", action="store_true", help="change nothing, fail if outdated")
    options = parser.parse_args()
    for path in (stale := outdated()):
        if options.check:
            print(f"{path} is not up to date: run python3 benchmarks/readme_table.py")
        else:
            path.write_text(filled(path.read_text(encoding="utf-8")), encoding="utf-8")
            print(f"Wrote {path}")
    return 1 if options.check and stale else 0


if __name__ == "__main__":
    sys.exit(main())

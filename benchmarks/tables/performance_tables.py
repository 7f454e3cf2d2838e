"""Tables of Performance Mode: presets and targets on the demo models, presets on a GPU."""

from __future__ import annotations

from collections.abc import Sequence

from table_markdown import NONE, Row, Rows, each_cfg, load, machine, markdown
from target import rivals_of

PRESETS = {
    "speed": ("mode `speed` alone", "the same picture; only rounding differs"),
    "quality": ("`quality` (default)", "finished pictures"),
    "balanced": ("`balanced`", "a shorter wait, and a look at the result"),
    "fast": ("`fast`", "trying prompts and compositions"),
    "ultra": ("`ultra`", "drafts"),
}
"""Rows of the short table: a setting of ``full_size.py``, its choice on the node, its purpose."""
ABOUT = ("steps", "sampler", "name")
"""What rows of one target have in common."""
NEAR = 0.05
"""A promise is kept that is met to so much."""
SHOWN = {"model": "FLUX", "steps": 28, "cfg": 3.0}
"""The rows of ``performance.py`` that it shows."""


def performance() -> str:
    """What the presets of Performance Mode save and cost on both demo models."""
    data = load("performance")
    modes = list(dict.fromkeys(mode for r in data["rows"] for mode in r.get("speedup", ())))
    columns = ["model", "steps", "preset", "computed", "planned for"]
    columns += [f"speed-up, `{mode}`" for mode in modes]
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
        lines[-1].append(each_cfg(rows, "promised", ".2f"))
        speeds = [row.get("speedup", {}) for row in rows]
        lines[-1] += [each_cfg(speeds, mode, ".2f") for mode in modes]
        lines[-1] += [each_cfg(rows, key, ".1f") for key in ("psnr", "plain_psnr")]
    scales = " / ".join(f"{s:g}" for s in sorted({row["cfg"] for row in data["rows"]}))
    caption = (
        f"euler, cfg {scales}; PSNR in dB of the latents to the full run, mean of up to "
        f"{data['prompts']} prompts. “plain” samples with as many steps as were computed. "
        f"{other_modes(data['rows'], modes)} {kept(data['rows'], modes)} Speed-ups are of one "
        "prompt, sampled in turns with the full run step by step; every step the median of "
        f"{data['rounds']} rounds."
    )
    return f"{markdown(columns, lines, texts=3)}\n\n{caption} {machine(data)}"


def kept(rows: Rows, modes: Sequence[str]) -> str:
    """How near the speed-ups of the first mode come to those that were planned for."""
    timed = [row for row in rows if "speedup" in row]
    if not timed:
        return ""
    mode = modes[0]
    off = [row["speedup"][mode] / row["promised"] - 1 for row in timed]
    near = sum(abs(each) <= NEAR for each in off)
    return (
        f"`{mode}` is within {NEAR:.0%} of what was planned for in {near} of {len(off)} cases, and "
        f"from {min(off):+.1%} to {max(off):+.1%} in all."
    )


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


def target() -> str:
    """A target speed-up beside the uniform plan and the best of the other ways."""
    data = load("target")
    columns = ["steps", "sampler", "target", "computed", "PSNR", "worst", "SSIM", "seconds"]
    columns += ["speed-up", "uniform", "best other way", "its computed", "its PSNR"]
    rows = data["rows"]
    targets = [row for row in rows if row["kind"] == "target"]
    even = {tuple(row[k] for k in ABOUT): row for row in rows if row["kind"] == "uniform"}
    order = list(dict.fromkeys(row["sampler"] for row in targets))
    targets.sort(key=lambda r: (r["steps"], order.index(r["sampler"]), float(r["name"])))
    lines = []
    for row in targets:
        best = [NONE] * 3
        for rival in rivals_of(row, rows)[:1]:
            name = f"{rival['kind']} {rival['name']}"
            best = [name, f"{rival['computed']:.1f}", f"{rival['psnr']:.1f}"]
        ours = [f"{row['computed']:.1f} of {row['evaluations']:g}"]
        ours += [f"{row['psnr']:.1f}", f"{row['least_psnr']:.1f}"]
        ours += [_cell(row, "ssim", ".3f"), _cell(row, "seconds", ".2f")]
        ours += [_cell(row, "speedup", ".2f")]
        ours += [_cell(even.get(tuple(row[k] for k in ABOUT), {}), "psnr", ".1f")]
        lines.append([f"{row['steps']}", row["sampler"], f"{row['name']}×", *ours, *best])
    *first, most = sorted({row["pictures"] for row in data["rows"]})
    look = " or ".join(str(pictures) for pictures in first)
    caption = (
        f"PSNR in dB of the latents to the full run, mean of {most} pictures, cfg 1. "
        "The best other way is the nearest picture with at most one evaluation more, among the "
        "static SCM presets, eight thresholds of DBCache and of TeaCache, ComfyUI's EasyCache at "
        "four thresholds (in bfloat16, compared with the full run in bfloat16) and plain sampling "
        "with fewer steps. “Uniform” computes as many, evenly spread, with the same forecast and "
        "corrector. “Worst” is the least of the pictures. Seconds and speed-up are of one prompt, "
        "sampled in turns with the full run step by step."
    )
    if first:
        caption += f" Of those that a first look at {look} pictures put behind three others, no "
        caption += "more was measured."
    return f"{markdown(columns, lines, texts=3)}\n\n{caption} {machine(data)}"


def _cell(row: Row, key: str, form: str) -> str:
    return format(row[key], form) if key in row else NONE


def presets() -> str:
    """What each choice gives at most on a GPU, and how near it stays on the demo model."""
    columns = ["choose", "for", "up to, on a GPU", "PSNR", "plain, as many steps"]
    lines, caption = _presets()
    return f"{markdown(columns, lines, texts=2)}\n\n{caption}"


def presets_list() -> str:
    """The same for the help panel of the page, which is too narrow for a table."""
    lines, caption = _presets()
    told = []
    for choice, purpose, most, near, plain in lines:
        text = f"- {choice} ({purpose}): up to {most} on a GPU"
        told.append(text if near == NONE else f"{text}; {near}, plain with as many steps {plain}")
    return "\n".join(told) + f"\n\n{caption}"


def _presets() -> tuple[list[list[str]], str]:
    """The rows of the short table and what stands below it."""
    gpu, demo = load("full_size"), load("performance")
    lines = []
    for setting, (choice, purpose) in PRESETS.items():
        rows = [r for r in gpu["rows"] if r["setting"] == setting and "speedup" in r]
        most = f"{max(row['speedup'] for row in rows):.2f}×" if rows else NONE
        near = [NONE] * 2
        for row in demo["rows"]:
            if SHOWN.items() <= row.items() and row["approximation"] == setting:
                near = [f"{row[key]:.1f} dB" for key in ("psnr", "plain_psnr")]
        lines.append([choice, purpose, most, *near])
    models = ", ".join(dict.fromkeys(row["model"] for row in gpu["rows"]))
    e = gpu["environment"]
    caption = (
        f"“Up to”: the best of {models}, in real size with random weights, on one {e['device']} "
        f"({e['date']}, `benchmarks/full_size.py`). PSNR: of the latents to the full run, on the "
        f"demo model, {SHOWN['steps']} steps, cfg {SHOWN['cfg']:g} "
        f"({demo['environment']['date']}, `benchmarks/performance.py`); more is nearer."
    )
    return lines, caption

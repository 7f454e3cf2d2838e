"""Tables of the shipped plan beside simpler ones and rivals, and of presets on hard schedules."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping, Sequence

from plans import PICTURES, STEPS
from table_markdown import NONE, Row, Rows, load, machine, markdown

RIVALS = ("recorded", "spectrum", "average velocity")
WAYS = ("plan", "uniform", "lengths", *RIVALS, "plain")
SCHEDULE = ("model", "sampler", "steps", "cfg", "pictures")
FALL, BEHIND = 1.0, 0.5
"""More than these many dB are named: a fall with one more evaluation, behind another way."""

Curve = Mapping[int, Row]


def curves(rows: Rows) -> dict[tuple[object, ...], dict[str, dict[int, Row]]]:
    """Rows by schedule, by way, and by count in rising order."""
    found: dict[tuple[object, ...], dict[str, dict[int, Row]]] = {}
    for row in sorted(rows, key=lambda r: r["count"]):
        schedule = found.setdefault(tuple(row[key] for key in SCHEDULE), {})
        schedule.setdefault(row["way"], {})[row["count"]] = row
    return found


def worst_fall(curve: Curve) -> tuple[float, str]:
    """The largest fall of the mean from one count to the next, in dB, and where it is."""
    falls = [
        (low["psnr"] - high["psnr"], f"{low['count']} → {high['count']}")
        for low, high in itertools.pairwise(curve.values())
    ]
    return max(falls, default=(0.0, NONE))


def over(own: Curve, other: Curve) -> str:
    """By how much a curve is nearer than another where both are known, mean of dB."""
    both = own.keys() & other.keys()
    if not both:
        return NONE
    return f"{statistics.fmean(own[n]['psnr'] - other[n]['psnr'] for n in both):+.1f}"


def behind(own: Curve, others: Sequence[Curve]) -> str:
    """At which counts the plan is behind one of them."""
    counts = [
        n for n in own if any(n in o and own[n]["psnr"] < o[n]["psnr"] - BEHIND for o in others)
    ]
    return ", ".join(map(str, counts)) or NONE


def line(name: str, ways: Mapping[str, Curve]) -> list[str]:
    plan, uniform = ways["plan"], ways.get("uniform", {})
    fall, where = worst_fall(plan)
    alone, _ = worst_fall(uniform)
    apart = max(row["psnr"] - row["worst"] for row in plan.values())
    return [
        name,
        behind(plan, [uniform]),
        behind(plan, [ways[way] for way in RIVALS if way in ways]),
        f"{fall:.1f} ({where})" if fall > FALL else NONE,
        f"{alone:.1f}" if alone > FALL else NONE,
        f"{statistics.fmean(row['psnr'] for row in plan.values()):.1f}",
        *(over(plan, ways.get(way, {})) for way in WAYS[1:]),
        f"{apart:.1f}",
    ]


def plans() -> str:
    """Schedules that every way was measured on, and those of most pictures."""
    data = load("plans")
    head = [
        "", "behind uniform at", "behind a rival at", "worst fall", "of uniform", "mean dB",
        *(f"over {way}" for way in WAYS[1:]), "worst picture under the mean",
    ]  # fmt: skip
    lines = [
        line(f"{model}, {sampler}, {steps} steps, cfg {cfg:g}, {pictures} pictures", ways)
        for (model, sampler, steps, cfg, pictures), ways in curves(data["rows"]).items()
        if "plain" in ways or ("plan" in ways and pictures > PICTURES)
    ]
    return f"{markdown(head, lines, texts=5)}\n\n{machine(data)}"


def plans_elsewhere() -> str:
    """By sampler: by how much the plan is nearer than the uniform one, and its worst fall."""
    data = load("plans")
    samplers = list(dict.fromkeys(row["sampler"] for row in data["rows"]))
    found: dict[tuple[str, int, float], dict[str, str]] = {}
    for (model, sampler, steps, cfg, pictures), ways in curves(data["rows"]).items():
        if "plan" in ways and "uniform" in ways and pictures == PICTURES:
            fall, where = worst_fall(ways["plan"]) if steps == STEPS else (0.0, NONE)
            cell = over(ways["plan"], ways["uniform"])
            found.setdefault((model, steps, cfg), {})[sampler] = (
                f"{cell}, falls {fall:.1f} ({where})" if fall > FALL else cell
            )
    lines = [
        [model, str(steps), f"{cfg:g}", *(cells.get(sampler, NONE) for sampler in samplers)]
        for (model, steps, cfg), cells in sorted(found.items())
    ]
    return f"{markdown(['', 'steps', 'cfg', *samplers], lines, texts=1)}\n\n{machine(data)}"


def schedules() -> str:
    """By how many dB each preset is nearer than plain sampling with as many steps."""
    data = load("schedules")
    presets = list(dict.fromkeys(row["preset"] for row in data["rows"]))
    found: dict[tuple[str, str, float], dict[str, str]] = {}
    for row in data["rows"]:
        here = found.setdefault((row["model"], row["case"], row["cfg"]), {})
        nearer = row["psnr"] - row["plain"]
        here[row["preset"]] = f"{nearer:+.1f} ({row['computed']:g} of {row['steps']})"
    lines = [
        [model, case, f"{cfg:g}", *(cells.get(preset, NONE) for preset in presets)]
        for (model, case, cfg), cells in found.items()
    ]
    return f"{markdown(['', 'schedule', 'cfg', *presets], lines, texts=2)}\n\n{machine(data)}"


def few_steps() -> str:
    """What skipping loses in models that were distilled to few steps, in dB."""
    data = load("few_steps")
    ways = ("plan", "uniform", "plain")
    lines = []
    for model in dict.fromkeys(row["model"] for row in data["rows"]):
        rows = [row for row in data["rows"] if row["model"] == model]
        named = {row["way"]: row for row in rows}
        steps = named["student"]["count"]
        lines += [
            [f"{model}: {way}, to the teacher's fine run", f"{named[way]['psnr']:.1f}", NONE, NONE]
            for way in (f"teacher in {steps} steps", "student")
        ]
        for count in sorted({row["count"] for row in rows if row["way"] in ways}, reverse=True):
            cells = {row["way"]: row for row in rows if row.get("count") == count}
            lines.append(
                [
                    f"{model}: {count} of {steps}, to the student's {steps}",
                    *(f"{cells[way]['psnr']:.1f} ({cells[way]['worst']:.1f})" for way in ways),
                ]
            )
    return f"{markdown(['', *ways], lines)}\n\n{machine(data)}"

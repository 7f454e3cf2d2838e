"""The table of the shipped plan beside simpler ones."""

from __future__ import annotations

import itertools
import statistics
from collections.abc import Mapping

from table_markdown import NONE, Row, Rows, load, machine, markdown

WAYS = ("plan", "uniform", "lengths", "plain")
SCHEDULE = ("model", "sampler", "steps", "cfg")
FALL, BEHIND = 1.0, 0.5
"""More than these many dB are named: a fall with one more evaluation, behind the uniform plan."""

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


def behind(own: Curve, other: Curve) -> str:
    """At which counts the plan is behind."""
    counts = [n for n in own if n in other and own[n]["psnr"] < other[n]["psnr"] - BEHIND]
    return ", ".join(map(str, counts)) or NONE


def line(name: str, ways: Mapping[str, Curve]) -> list[str]:
    plan, uniform = ways["plan"], ways.get("uniform", {})
    fall, where = worst_fall(plan)
    alone, _ = worst_fall(uniform)
    apart = max(row["psnr"] - row["worst"] for row in plan.values())
    return [
        name,
        behind(plan, uniform),
        f"{fall:.1f} ({where})" if fall > FALL else NONE,
        f"{alone:.1f}" if alone > FALL else NONE,
        f"{statistics.fmean(row['psnr'] for row in plan.values()):.1f}",
        *(over(plan, ways.get(way, {})) for way in WAYS[1:]),
        f"{apart:.1f}",
    ]


def plans() -> str:
    """Every schedule of ``plans.json``."""
    data = load("plans")
    head = [
        "", "behind uniform at", "worst fall", "of uniform", "mean dB", "over uniform",
        "over lengths", "over plain", "worst picture under the mean",
    ]  # fmt: skip
    lines = [
        line(f"{model}, {sampler}, {steps} steps, cfg {cfg:g}", ways)
        for (model, sampler, steps, cfg), ways in curves(data["rows"]).items()
        if "plan" in ways
    ]
    return f"{markdown(head, lines, texts=4)}\n\n{machine(data)}"

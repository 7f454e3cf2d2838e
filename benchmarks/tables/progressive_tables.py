"""Tables of Progressive Resolution."""

from __future__ import annotations

from collections.abc import Sequence

from table_markdown import NONE, Row, Rows, load, machine, markdown


def progressive() -> str:
    """Every kind of row of ``progressive.json`` that is there."""
    data = load("progressive")
    rows: Rows = data["rows"]
    parts = [
        part(found)
        for kind, part in PARTS.items()
        if (found := [row for row in rows if row["kind"] == kind])
    ]
    busy = " Others used the machine, so times are rough." if data["busy"] else ""
    return "\n\n".join([*parts, machine(data) + busy])


def closed_form(rows: Rows) -> str:
    coarse = sorted({row["coarse"] for row in rows})
    ways: dict[str, dict[int, Row]] = {}
    for row in rows:
        ways.setdefault(row["way"], {})[row["coarse"]] = row
    lines = [
        [
            way,
            *(f"{found[n]['psnr']:.1f}" for n in coarse),
            f"{max((found[n]['band'] for n in coarse), key=abs):+.2f}",
        ]
        for way, found in ways.items()
    ]
    head = ["", *(f"{n} of 28 small, dB" for n in coarse), "farthest band, dB"]
    return f"The closed form\n\n{markdown(head, lines)}"


def two_sizes(rows: Rows) -> str:
    measured = [row for row in rows if "psnr" in row]
    ways = list(dict.fromkeys(row["way"] for row in measured))
    schedules: dict[tuple[object, ...], dict[str, Row]] = {}
    for row in measured:
        key = tuple(row[name] for name in ("model", "steps", "cfg", "coarse", "plain_steps"))
        schedules.setdefault(key, {})[row["way"]] = row
    head = ["", "small", *(f"{way}, dB" for way in ways), "plain steps", "lowest band, dB"]
    lines: Sequence[list[str]] = [
        [
            f"{model}, {steps} steps, cfg {cfg:g}",
            str(coarse),
            *(f"{found[way]['psnr']:.1f}" if way in found else NONE for way in ways),
            str(plain),
            f"{found['node']['band']:+.2f}",
        ]
        for (model, steps, cfg, coarse, plain), found in schedules.items()
    ]
    return f"The check models, trained at two sizes, 8 prompts\n\n{markdown(head, lines)}"


def caching(rows: Rows) -> str:
    groups: dict[str, dict[str, Row]] = {}
    for row in rows:
        groups.setdefault(row["with"], {})[row["way"]] = row
    lines = [
        [
            name,
            *(f"{found[way]['speedup']:.2f}" for way in ("small", name, "both")),
            f"{found['both']['psnr']:.1f}",
        ]
        for name, found in groups.items()
    ]
    head = ["", "small pictures", "caching", "both", "both to small pictures, dB"]
    first = rows[0]
    coarse = next(row["coarse"] for row in rows if "coarse" in row)
    title = (
        f"Times as fast, FLUX demo, {first['side']} a side, {first['steps']} steps of which "
        f"{coarse} small"
    )
    return f"{title}\n\n{markdown(head, lines)}"


def cost(rows: Rows) -> str:
    (row,) = rows
    text = (
        f"An evaluation of the FLUX demo at half of {row['side']} a side costs {row['share']:.0%} "
        f"of a full one; the node adds {max(row['extra_share'], 0):.1%} of a full one to it."
    )
    if "formula" in row:
        text += (
            f" With {row['coarse']} of {row['steps']} evaluations small a run is "
            f"{row['speedup']:.2f} times as fast; the evaluations alone would give "
            f"{row['formula']:.2f}."
        )
    return text


PARTS = {"closed form": closed_form, "two sizes": two_sizes, "caching": caching, "cost": cost}

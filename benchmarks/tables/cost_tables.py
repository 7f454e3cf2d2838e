"""Tables of what the pack itself costs, on the demo model."""

from __future__ import annotations

from costs import farthest, fit, of_presets
from table_markdown import NONE, load, machine, markdown


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


def costs() -> str:
    """What computed and skipped evaluations cost, measured and as presets plan."""
    data, gpu = load("costs"), load("full_size")
    columns = ["", "cfg", "an evaluation", "computed", "skipped", "off", "planned with", "off"]
    lines = []
    for r in data["rows"]:
        shares = [f"{r[key]:.3f}" for key in ("computed", "skipped")]
        plans = f"{r['planned_computed']:.2f} and {r['planned_skipped']:.2f}, {r['source']}"
        off = [f"{r['off']:.1%}", plans, f"{r['planned_off']:.1%}"]
        lines.append([r["model"], f"{r['cfg']:g}", f"{r['evaluation_ms']:.1f} ms", *shares, *off])
    for model in dict.fromkeys(r["model"] for r in gpu["rows"]):
        rows = [r for r in gpu["rows"] if r["model"] == model and "speedup" in r]
        (full,) = (r for r in rows if r["setting"] == "plain")
        times = of_presets(rows)
        found = fit(list(times), list(times.values()))
        evaluation = f"{1000 * full['seconds'] / full['evaluations']:.0f} ms"
        shares = [f"{share:.3f}" for share in found]
        off = f"{farthest(found, times):.1%}"
        lines.append(
            [f"{model}, real size", f"{full['cfg']:g}", evaluation, *shares, off, NONE, NONE]
        )
    e = gpu["environment"]
    caption = (
        "Shares of an evaluation of the full run, fitted to runs that compute a given share of the "
        "steps. “Off”: how far the time of other runs is from these costs, at most, and from those "
        "that presets plan with: measured ones of the demos, else a computed evaluation costs 1 "
        "and a skipped one its parameters and a little more. The last lines are fitted to the "
        f"presets in `full_size.json`, on one {e['device']} ({e['date']}), and “off” is of the "
        "same runs."
    )
    return f"{markdown(columns, lines)}\n\n{caption} {machine(data)}"


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

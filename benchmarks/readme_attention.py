"""Tables of the attention kernels on a GPU."""

from __future__ import annotations

from readme_markdown import Row, Rows, load, machine, markdown, packages, span

EXACT, QUANTISING = "output-preserving", "quality-tradeoff"
HOW = (
    "“Ratio” is the speed beside `sdpa`, PyTorch's own choice among its kernels, in the same call; "
    "“error” the relative error (L2) against attention in float32. The tensors are random numbers "
    "in the sizes of the models; what error the exact kernels have is that of rounding"
)


def by_shape(rows: Rows) -> dict[str, list[Row]]:
    """Rows that were timed by what they time, fewest tokens and fastest kernels first."""
    found: dict[str, list[Row]] = {}
    for row in sorted(rows, key=lambda r: (r["tokens"], r.get("ms", 0.0))):
        if "ms" in row:
            found.setdefault(row["shape"], []).append(row)
    return found


def best(rows: Rows, quality: str) -> Row | None:
    """The fastest of a class; ``rows`` are sorted."""
    return next((row for row in rows if row["quality_class"] == quality), None)


def attention() -> str:
    """Every backend that ran on every shape, the fastest first."""
    data = load("attention")
    columns = ["attention of", "backend", "class", "tokens", "ms", "TFLOP/s", "ratio", "error"]
    lines = [
        [
            shape,
            f"`{row['backend']}`",
            row["quality_class"],
            f"{row['tokens']}",
            f"{row['ms']:.2f}",
            f"{row['tflops']:.0f}",
            f"{row['ratio_to_sdpa']:.2f}",
            f"{row['error']:.1e}",
        ]
        for shape, rows in by_shape(data["rows"]).items()
        for row in rows
    ]
    failed = dict.fromkeys(f"`{row['backend']}`" for row in data["rows"] if "reason" in row)
    left_out = f" Installed, but not working on this device: {', '.join(failed)}." if failed else ""
    caption = (
        f"{HOW} to {data['dtype']}. Medians of {data['repeats']} calls. TFLOP/s count the two "
        f"matrix products.{left_out} {machine(data)}{packages(data)}"
    )
    return f"{markdown(columns, lines, texts=3)}\n\n{caption}"


def cell(row: Row | None) -> str:
    """A kernel with its figures."""
    if row is None:
        return "none"
    name, ratio = row["backend"], row["ratio_to_sdpa"]
    return f"`{name}`: {row['ms']:.2f} ms, ratio {ratio:.2f}, error {row['error']:.1e}"


def attention_brief() -> str:
    """The best exact and the best quantising kernel of every shape."""
    data = load("attention")
    columns = ["attention of", "best exact kernel", "best quantising kernel", "tokens", "`sdpa`"]
    lines = []
    for shape, rows in by_shape(data["rows"]).items():
        base = next(row for row in rows if row["backend"] == "sdpa")
        lines.append([shape, cell(best(rows, EXACT)), cell(best(rows, QUANTISING))])
        lines[-1] += [f"{base['tokens']}", f"{base['ms']:.2f} ms"]
    caption = f"{HOW} to {data['dtype']}. {machine(data)}{packages(data)}"
    return f"{markdown(columns, lines, texts=3)}\n\n{caption}"


def attention_said() -> str:
    """What the short table says, as a sentence."""
    shapes = by_shape(load("attention")["rows"]).values()
    parts = []
    for quality, name in ((EXACT, "exact"), (QUANTISING, "quantising")):
        found = [row for rows in shapes if (row := best(rows, quality))]
        if found:
            who = ", ".join(dict.fromkeys(f"`{row['backend']}`" for row in found))
            ratios = ", ".join(f"{row['ratio_to_sdpa']:.2f}" for row in found)
            error = span([row["error"] for row in found], ".1e")
            parts.append(f"the fastest {name} kernel ({who}) {ratios} times, error {error}")
    tokens = ", ".join(f"{rows[0]['tokens']}" for rows in shapes)
    return (
        f"Timed alone at {tokens} tokens, the speed beside PyTorch's own choice is: "
        f"{'; '.join(parts)}."
    )

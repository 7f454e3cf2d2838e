"""The table of the attention kernels on a GPU."""

from __future__ import annotations

from table_markdown import load, machine, markdown, packages

HOW = (
    "“Ratio” is the speed beside `sdpa`, PyTorch's own choice among its kernels, in the same call; "
    "“error” the relative error (L2) against attention in float32. The tensors are random numbers "
    "in the sizes of the models; what error the exact kernels have is that of rounding"
)


def attention() -> str:
    """Every backend that ran on every shape, the fastest first."""
    data = load("attention")
    timed = [row for row in data["rows"] if "ms" in row]
    columns = ["attention of", "backend", "class", "tokens", "ms", "TFLOP/s", "ratio", "error"]
    lines = [
        [
            row["shape"],
            f"`{row['backend']}`",
            row["quality_class"],
            f"{row['tokens']}",
            f"{row['ms']:.2f}",
            f"{row['tflops']:.0f}",
            f"{row['ratio_to_sdpa']:.2f}",
            f"{row['error']:.1e}",
        ]
        for row in sorted(timed, key=lambda r: (r["tokens"], r["shape"], r["ms"]))
    ]
    failed = dict.fromkeys(f"`{row['backend']}`" for row in data["rows"] if "reason" in row)
    left_out = f" Installed, but not working on this device: {', '.join(failed)}." if failed else ""
    caption = (
        f"{HOW} to {data['dtype']}. Medians of {data['repeats']} calls. TFLOP/s count the two "
        f"matrix products.{left_out} {machine(data)}{packages(data)}"
    )
    return f"{markdown(columns, lines, texts=3)}\n\n{caption}"

"""The table of what several GPUs may bring: predicted from one measured, by formula."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

from engine_tables import engine
from harness import ROOT
from table_markdown import markdown

OUTSIDE = 0.02
"""Share of an evaluation outside of the blocks, which every GPU does for itself (assumed)."""
LATENCY = 30e-6
"""Seconds that an exchange costs beside its bytes (assumed)."""
LINKS = {"PCIe, 22 GB/s": 22e9, "NVLink, 150 GB/s": 150e9}
"""The first fits what cache-dit published for FLUX.1 on two and four L20; the second is assumed."""
BF16 = 2


@dataclass(frozen=True)
class Model:
    """Of ``full_size_models``, what its attention exchanges; heads are 128 wide."""

    heads: int
    blocks: int
    text: int
    image: int


MODELS = {
    "FLUX.1-dev": Model(24, 57, 512, 64 * 64),
    "Qwen-Image": Model(24, 60, 128, 83 * 83),
    "Wan 2.1 14B": Model(40, 40, 0, 9 * 52 * 30),
}


def parallel() -> str:
    """Seconds of an evaluation, positive and negative prompt where there is guidance."""
    results = json.loads((ROOT / "benchmarks" / "results" / "full_size.json").read_text("utf-8"))
    plain = {row["model"]: row for row in results["rows"] if row["setting"] == "plain"}
    rows: list[list[str]] = []
    for name, model in MODELS.items():
        seconds, batch = plain[name]["ms_computed"] / 1000, 2 if plain[name]["cfg"] > 1 else 1
        for link, bandwidth in LINKS.items():
            cells = [_cell(model, seconds, batch, gpus, bandwidth) for gpus in (2, 4)]
            rows.append(
                [f"{name}, {batch} row{'s' if batch > 1 else ''}", f"{seconds:.2f} s", link]
            )
            rows[-1] += [text for cell in cells for text in cell]
    columns = ["model", "1 GPU, measured", "link (assumed)", "2 GPUs share", "2 GPUs, predicted"]
    columns += ["4 GPUs share", "4 GPUs, predicted"]
    table = markdown(columns, rows, texts=3)
    where = results["environment"]
    return (
        f"{table}\n\nOne GPU: {where['device']}, {where['date']}, `benchmarks/full_size.py`, one "
        "evaluation. The rest is predicted, not measured: it takes "
        f"{OUTSIDE:.0%} of an evaluation to lie outside of the blocks, {LATENCY * 1e6:.0f} µs an "
        "exchange, and nothing for the way between ComfyUI and the processes."
    )


def _cell(model: Model, seconds: float, batch: int, gpus: int, bandwidth: float) -> list[str]:
    formulas = engine("parallel.prediction")
    plan = engine("parallel.rows").plan("auto", gpus, batch, batch)
    team, each = len(plan.teams[0]), plan.rows[0]
    # A team evaluates its rows only.
    one = seconds * each / batch
    measured = formulas.Measured(one * (1 - OUTSIDE), one * OUTSIDE, bandwidth, LATENCY)
    sent, calls = _traffic(model, each, team)
    shared = []
    if len(plan.teams) > 1:
        shared.append("rows")
    if team > 1:
        shared.append(f"tokens ({sent / 1e9:.1f} GB sent)")
    predicted = formulas.predicted_seconds(measured, team, sent, calls)
    return [", ".join(shared), f"{predicted:.2f} s ({seconds / predicted:.1f}×)"]


def _traffic(model: Model, rows: int, ranks: int) -> tuple[int, int]:
    """Bytes that the busiest rank sends in an evaluation, and how often."""
    if ranks == 1:
        return 0, 0
    formulas: Any = engine("parallel.prediction")
    shares = engine("parallel.layout").shares
    image, width = shares(model.image, ranks), model.heads * 128
    sizes = [sum(n) for n in zip(shares(model.text, ranks), image, strict=True)]
    chosen = engine("parallel.exchange").chosen("auto", ranks, model.heads, model.heads)
    if chosen == "keys":
        sent = formulas.keys_bytes(rows, width, sizes, BF16)
    else:
        sent = formulas.ulysses_bytes(0, rows, model.heads, 128, sizes, BF16)
    whole = sent * model.blocks + formulas.gather_bytes(rows, width, image, BF16)
    return whole, 2 * model.blocks + 1

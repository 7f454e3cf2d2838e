"""The table of what Quantize Model loses on the demo models."""

from __future__ import annotations

from typing import Any

from table_markdown import NONE, load, machine, markdown

COLUMNS = ("quality", "lora", "planted")
TITLES = {
    "quality": "Every precision, against fp32",
    "lora": "A LoRA, against fp32 with that LoRA",
    "planted": "Values planted that break formats, in the model's prediction",
}


def quantize() -> str:
    """One table a kind of row; both demo models side by side."""
    data = load("quantize")
    parts = []
    for kind in COLUMNS:
        rows = [row for row in data["rows"] if row["kind"] == kind]
        models = sorted({row["model"] for row in rows})
        ways = list(dict.fromkeys((row.get("plant", ""), row["way"]) for row in rows))
        by_place = {(row["model"], row.get("plant", ""), row["way"]): row for row in rows}
        lines = [
            [f"{plant}: {way}" if plant else way]
            + [_told(by_place.get((model, plant, way)), kind) for model in models]
            for plant, way in ways
        ]
        if lines:
            parts.append(f"{TITLES[kind]}\n\n" + markdown(["precision", *models], lines))
    busy = " Others used the machine meanwhile; no time is shown." if data["busy"] else ""
    return "\n\n".join([*parts, machine(data) + busy])


def _told(row: dict[str, Any] | None, kind: str) -> str:
    if row is None:
        return NONE
    found = []
    if row.get("psnr") is not None:
        found.append(f"{row['psnr']:.1f} dB")
    if row.get("error") is not None:
        error = f"{100 * row['error']:.2g} %"
        if row.get("predicted") is not None:
            error += f" (predicted {100 * row['predicted']:.2g})"
        found.append(error)
    if kind == "quality":
        found.append(f"{row['bytes'] / 1e6:.2f} of {row['bytes_before'] / 1e6:.1f} MB")
    return ", ".join(found) or "left alone"

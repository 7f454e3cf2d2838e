"""Draw ``contact_sheet.png``: every prompt of the demo model, several seeds, CFG 1 and CFG 3.

The host does all the work: its stock loader reads the file and its KSampler node draws the
samples. Run ``python workflows/demo/contact_sheet.py --comfyui PATH``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from host import add_host_argument, import_host
from PIL import Image, ImageDraw
from shapes import (
    LATENT_CHANNELS,
    LATENT_SIZE,
    PROMPTS,
    UNCONDITIONAL,
    host_to_model,
    model_to_picture,
    text_embedding,
)

HERE = Path(__file__).resolve().parent
MODEL_FILE = HERE / "models" / "dit_accel_demo_flux.safetensors"
SCALES = (1.0, 3.0)
LABEL, GAP, HEAD = 104, 8, 18


def conditioning(prompt: str) -> list[Any]:
    """The conditioning that the demo's prompt node returns."""
    tokens, pooled = text_embedding(prompt)
    return [[tokens, {"pooled_output": pooled}]]


def sample(nodes: Any, model: Any, prompt: str, cfg: float, seed: int, steps: int) -> torch.Tensor:
    """Sample one picture with the stock KSampler, RGB in 0..1, shape [1, 3, 64, 64]."""
    latent = {"samples": torch.zeros(1, LATENT_CHANNELS, LATENT_SIZE, LATENT_SIZE)}
    positive, negative = conditioning(prompt), conditioning(UNCONDITIONAL)
    (result,) = nodes.KSampler().sample(
        model, seed, steps, cfg, "euler", "simple", positive, negative, latent, 1.0
    )
    return model_to_picture(host_to_model(result["samples"]))


def paste_sheet(rows: list[list[torch.Tensor]], columns: int, tile: int) -> Image.Image:
    """Lay out one row a prompt: ``columns`` pictures for each guidance scale."""
    block = columns * tile
    width = LABEL + len(SCALES) * (block + GAP)
    sheet = Image.new("RGB", (width, HEAD + len(rows) * tile), "white")
    pen = ImageDraw.Draw(sheet)
    for index, cfg in enumerate(SCALES):
        pen.text((LABEL + index * (block + GAP), 3), f"CFG {cfg:g}", fill="black")
    for y, (prompt, pictures) in enumerate(zip(PROMPTS, rows, strict=True)):
        pen.text((4, HEAD + y * tile + tile // 2 - 6), prompt, fill="black")
        for x, picture in enumerate(pictures):
            large = F.interpolate(picture, (tile, tile), mode="bicubic").clamp(0, 1)
            array = (large[0].movedim(0, -1) * 255).round().byte().numpy()
            left = LABEL + x * tile + x // columns * GAP
            sheet.paste(Image.fromarray(array), (left, HEAD + y * tile))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_host_argument(parser)
    parser.add_argument("--model", type=Path, default=MODEL_FILE)
    parser.add_argument("--output", type=Path, default=HERE / "contact_sheet.png")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--tile", type=int, default=80)
    args = parser.parse_args()

    import_host(args.comfyui)
    import comfy.utils
    import folder_paths

    import nodes

    comfy.utils.set_progress_bar_enabled(False)
    folder_paths.add_model_folder_path("diffusion_models", str(args.model.resolve().parent))
    (model,) = nodes.UNETLoader().load_unet(args.model.name, "default")
    rows = []
    for prompt in PROMPTS:
        runs = [(cfg, seed) for cfg in SCALES for seed in range(args.seeds)]
        rows.append([sample(nodes, model, prompt, cfg, seed, args.steps) for cfg, seed in runs])
    paste_sheet(rows, args.seeds, args.tile).save(args.output, optimize=True)
    print(f"{args.output} {args.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()

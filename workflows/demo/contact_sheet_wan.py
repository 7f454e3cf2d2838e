"""Draw ``contact_sheet_wan.png``: every prompt of the video model, a few seeds, frame by frame.

The host does all the work: its stock loader reads the file and its KSampler node draws the
samples. Run ``python workflows/demo/contact_sheet_wan.py --comfyui PATH``.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
from host import add_host_argument, import_host
from moving_shapes import (
    FRAMES,
    LATENT_SHAPE,
    PROMPTS,
    UNCONDITIONAL,
    host_to_model,
    model_to_video,
    text_embedding,
)
from PIL import Image, ImageDraw

HERE = Path(__file__).resolve().parent
MODEL_FILE = HERE / "models" / "dit_accel_demo_wan.safetensors"
LABEL, GAP, HEAD = 152, 10, 18


def sample(nodes: Any, model: Any, prompt: str, cfg: float, seed: int, steps: int) -> torch.Tensor:
    """Sample one video with the stock KSampler, RGB in 0..1, shape [1, 3, F, 24, 24]."""
    latent = {"samples": torch.zeros(1, *LATENT_SHAPE)}
    positive, negative = ([[text_embedding(text), {}]] for text in (prompt, UNCONDITIONAL))
    (result,) = nodes.KSampler().sample(
        model, seed, steps, cfg, "euler", "simple", positive, negative, latent, 1.0
    )
    return model_to_video(host_to_model(result["samples"].float()))


def paste_sheet(rows: list[list[torch.Tensor]], tile: int) -> Image.Image:
    """Lay out one row a prompt and, side by side, the frames of each seed."""
    block = FRAMES * tile
    width = LABEL + len(rows[0]) * (block + GAP)
    sheet = Image.new("RGB", (width, HEAD + len(rows) * tile), "white")
    pen = ImageDraw.Draw(sheet)
    for seed in range(len(rows[0])):
        pen.text((LABEL + seed * (block + GAP), 3), f"seed {seed}, frames 1-{FRAMES}", fill="black")
    for y, (prompt, videos) in enumerate(zip(PROMPTS, rows, strict=True)):
        pen.text((4, HEAD + y * tile + tile // 2 - 6), prompt, fill="black")
        for seed, video in enumerate(videos):
            for x, frame in enumerate(video[0].unbind(1)):
                array = (frame.movedim(0, -1) * 255).round().byte().numpy()
                picture = Image.fromarray(array).resize(
                    (tile - 2, tile - 2), Image.Resampling.BICUBIC
                )
                left = LABEL + seed * (block + GAP) + x * tile
                sheet.paste(picture, (left, HEAD + y * tile))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_host_argument(parser)
    parser.add_argument("--model", type=Path, default=MODEL_FILE)
    parser.add_argument("--output", type=Path, default=HERE / "contact_sheet_wan.png")
    parser.add_argument("--steps", type=int, default=28)
    parser.add_argument("--cfg", type=float, default=3.0)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--tile", type=int, default=64)
    args = parser.parse_args()

    import_host(args.comfyui)
    import comfy.utils
    import folder_paths

    import nodes

    comfy.utils.set_progress_bar_enabled(False)
    folder_paths.add_model_folder_path("diffusion_models", str(args.model.resolve().parent))
    (model,) = nodes.UNETLoader().load_unet(args.model.name, "default")
    rows = [
        [sample(nodes, model, prompt, args.cfg, seed, args.steps) for seed in range(args.seeds)]
        for prompt in PROMPTS
    ]
    paste_sheet(rows, args.tile).save(args.output, optimize=True)
    print(f"{args.output} {args.output.stat().st_size} bytes")


if __name__ == "__main__":
    main()

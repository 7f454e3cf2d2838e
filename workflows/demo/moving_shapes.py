"""Moving pictures drawn by formula, the latent that holds them, and the prompts that name them.

The video counterpart of ``shapes.py``, whose outlines, colours and latent map it takes: six shapes,
each with its own motion, in five frames of 24x24 pixels.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

if __package__:
    from .shapes import _CATALOGUE as CATALOGUE
    from .shapes import LATENT_CHANNELS, UNCONDITIONAL, chirp, model_to_picture, picture_to_model
else:
    from shapes import _CATALOGUE as CATALOGUE
    from shapes import LATENT_CHANNELS, UNCONDITIONAL, chirp, model_to_picture, picture_to_model

FRAMES = 5
FRAME_SIZE = 24
LATENT_SHAPE = (LATENT_CHANNELS, FRAMES, FRAME_SIZE // 2, FRAME_SIZE // 2)
TEXT_TOKENS = 8
TEXT_WIDTH = 4096  # what the host takes as given for the Wan architecture ...
TEXT_USED = 64  # ... and how many of these numbers are not zero


@dataclass(frozen=True)
class Motion:
    """What changes from the first frame to the last, in half pictures, radians and size."""

    right: float = 0.0
    down: float = 0.0
    turn: float = 0.0
    growth: float = 1.0


_MOTIONS: dict[str, tuple[str, Motion]] = {
    "red circle moving right": ("red circle", Motion(right=1.0)),
    "blue square falling": ("blue square", Motion(down=1.0)),
    "green triangle growing": ("green triangle", Motion(growth=2.2)),
    "purple ring moving left": ("purple ring", Motion(right=-1.0)),
    "orange cross rotating": ("orange cross", Motion(turn=math.pi / 4)),
    "cyan moon rising": ("cyan moon", Motion(down=-1.0)),
}
PROMPTS: tuple[str, ...] = tuple(_MOTIONS)


def draw(labels: torch.Tensor, generator: torch.Generator, variety: float = 1.0) -> torch.Tensor:
    """Draw one random moving picture of each label.

    Parameters
    ----------
    labels : torch.Tensor
        Prompt indices in ``PROMPTS``, shape [B].
    generator : torch.Generator
        Source of place, size, speed and background.
    variety : float
        How much the pictures of one prompt differ: at 0 all move alike, on different backgrounds.

    Returns
    -------
    torch.Tensor
        RGB in 0..1, shape [B, 3, F, 24, 24].
    """
    count = labels.shape[0]
    random = torch.rand(10, count, 1, 1, 1, generator=generator) * 2 - 1
    place_x, place_y, size, speed, angle = variety * random[:5]
    light, warm, cold, slope_x, slope_y = random[5:]
    chosen = [_MOTIONS[PROMPTS[label]] for label in labels.tolist()]
    motion = torch.tensor([[m.right, m.down, m.turn, math.log(m.growth)] for _, m in chosen])
    time = torch.linspace(-0.5, 0.5, FRAMES).view(1, FRAMES, 1, 1)
    # The middle of the motion is anywhere near the middle of the picture, its speed differs.
    right, down, turn, grow = (motion.T[..., None, None, None] * time) * (1 + 0.35 * speed)
    # A shape that moves along an axis has less room there.
    room_x, room_y = (0.5 - 0.35 * motion.T[:2].abs())[..., None, None, None]

    axis = (torch.arange(FRAME_SIZE) + 0.5) / (FRAME_SIZE / 2) - 1
    grid_y, grid_x = axis[:, None], axis[None, :]
    dx, dy = grid_x - room_x * place_x - right, grid_y - room_y * place_y - down
    radius = (0.46 + 0.06 * size) * grow.exp()
    turn = turn + 0.15 * angle
    x = (dx * turn.cos() + dy * turn.sin()) / radius
    y = (dy * turn.cos() - dx * turn.sin()) / radius
    outlines = [CATALOGUE[name] for name, _ in chosen]
    distance = torch.stack([shape(x[i], y[i]) for i, (_, shape) in enumerate(outlines)])
    pixel = 2 / FRAME_SIZE
    cover = (0.5 - distance * radius / (1.5 * pixel)).clamp(0, 1)[:, None]

    # Rich backgrounds give the sampler something to decide all along its way.
    level = 0.3 + 0.18 * light + 0.12 * (slope_x * grid_x + slope_y * grid_y)
    background = torch.stack([level + 0.08 * warm, level, level + 0.08 * cold], dim=1)
    colour = torch.tensor([rgb for rgb, _ in outlines])[..., None, None, None]
    return (background * (1 - cover) + colour * cover).clamp(0, 1)


def video_to_model(video: torch.Tensor) -> torch.Tensor:
    """Map RGB in 0..1, shape [B, 3, F, 2H, 2W], to model space, shape [B, 16, F, H, W]."""
    frames = picture_to_model(video.movedim(2, 1).flatten(0, 1))
    return frames.unflatten(0, (-1, video.shape[2])).movedim(1, 2).contiguous()


def model_to_video(latent: torch.Tensor) -> torch.Tensor:
    """Map model space, shape [B, 16, F, H, W], to RGB in 0..1, shape [B, 3, F, 2H, 2W]."""
    frames = model_to_picture(latent.movedim(2, 1).flatten(0, 1))
    return frames.unflatten(0, (-1, latent.shape[2])).movedim(1, 2).contiguous()


def host_to_model(samples: torch.Tensor) -> torch.Tensor:
    """Undo the shift and scale that the host gives each channel, shape [B, 16, F, H, W]."""
    from comfy.latent_formats import Wan21

    return Wan21().process_in(samples)


def text_embedding(prompt: str) -> torch.Tensor:
    """Embedding of a prompt, shape [1, 8, 4096]; see ``shapes.text_embedding``.

    Only the first 64 numbers of a token are used: the host's detection wants the width.
    """
    row = 0 if prompt == UNCONDITIONAL else PROMPTS.index(prompt) + 1
    tokens = torch.zeros(1, TEXT_TOKENS, TEXT_WIDTH)
    tokens[..., :TEXT_USED] = chirp(row, TEXT_TOKENS * TEXT_USED).view(TEXT_TOKENS, TEXT_USED)
    return tokens

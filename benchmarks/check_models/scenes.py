"""Scenes drawn by formula whose spectrum falls like that of photographs, and their prompts.

What the check models were trained on: a ground of overlapping discs whose sizes follow a power law
("dead leaves", as occluding things in photographs do), an object that the prompt names, and over
both a texture with equal power in every octave. Their power falls about as 1/f^2. A latent has one
value of each channel a pixel; a smaller latent is the low corner of the larger one's DCT, so that
both sizes hold the same picture by definition.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from pathlib import Path

import scipy.fft
import torch
import torch.nn.functional as F

sys.path.append(str(Path(__file__).resolve().parents[2] / "workflows" / "demo"))

from shapes import LATENT_CHANNELS, UNCONDITIONAL, chirp

TEXT_TOKENS, TEXT_WIDTH = 8, 64
LEAVES, LEAST_LEAF, LARGEST_LEAF = 10, 0.12, 1.2
WAVES, LOWEST_WAVE, ROUGHNESS = 16, 0.7, 0.35
FINER = 2
"""How many times finer than the latent a scene is drawn, so that edges are soft."""

COLORS = {
    "red": (0.90, 0.10, 0.10),
    "blue": (0.10, 0.22, 0.92),
    "green": (0.08, 0.72, 0.16),
    "yellow": (0.96, 0.84, 0.08),
}
_OBJECTS = ("ball", "box")
_MOTIONS = {  # to the right, down, growth, over the whole video
    "moving right": (0.8, 0.0, 0.0),
    "moving left": (-0.8, 0.0, 0.0),
    "rising": (0.0, -0.8, 0.0),
    "growing": (0.0, 0.0, 0.8),
}


@dataclass(frozen=True)
class Named:
    """What a prompt fixes: color, object and motion."""

    color: tuple[float, float, float]
    shape: str
    motion: tuple[float, float, float] = (0.0, 0.0, 0.0)


PICTURES = {f"{c} {o}": Named(rgb, o) for o in _OBJECTS for c, rgb in COLORS.items()}
VIDEOS = {
    f"{color} {shape} {motion}": Named(COLORS[color], shape, how)
    for color, shape in (("red", "ball"), ("blue", "box"))
    for motion, how in _MOTIONS.items()
}


@dataclass(frozen=True)
class Canvas:
    """Where scenes are drawn: the full side of a latent, its frames, and what prompts mean."""

    side: int
    frames: int
    named: dict[str, Named]

    @property
    def prompts(self) -> tuple[str, ...]:
        return tuple(self.named)

    def shape(self, side: int | None = None) -> tuple[int, int, int, int]:
        """Of a latent without the batch, at the full or another side."""
        side = side or self.side
        return LATENT_CHANNELS, self.frames, side, side

    def tokens(self, prompt: str) -> torch.Tensor:
        """The embedding that stands in for a text encoder's, ``[1, 8, 64]``."""
        row = 0 if prompt == UNCONDITIONAL else self.prompts.index(prompt) + 1
        return chirp(row, TEXT_TOKENS * TEXT_WIDTH).view(1, TEXT_TOKENS, TEXT_WIDTH)


PICTURE = Canvas(16, 1, PICTURES)
VIDEO = Canvas(16, 3, VIDEOS)


def draw(canvas: Canvas, labels: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    """One random scene of each label (an index in ``canvas.prompts``), RGB ``[B, 3, F, S, S]``."""
    count, frames = len(labels), canvas.frames
    time = torch.linspace(-0.5, 0.5, frames) if frames > 1 else torch.zeros(1)
    # The camera drifts over the ground, the object moves by itself.
    drift = 0.3 * (torch.rand(2, count, 1, generator=generator) * 2 - 1) * time
    ground = _leaves(canvas, drift, count, generator)
    scene = _object(canvas, ground, labels, time, generator)
    fine = F.avg_pool2d(scene.flatten(0, 1), FINER).unflatten(0, (count, frames))
    light = _texture(canvas, drift, count, generator)
    return (fine * torch.exp(ROUGHNESS * light)[:, :, None]).clamp(0, 1.2).movedim(2, 1)


def _grid(side: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Centers of pixels from -1 to 1: x ``[1, S]`` and y ``[S, 1]``."""
    axis = (torch.arange(side) + 0.5) / (side / 2) - 1
    return axis[None, :], axis[:, None]


def _over(scene: torch.Tensor, color: torch.Tensor, distance: torch.Tensor) -> torch.Tensor:
    """Paint where a distance ``[B, F, S, S]`` in half pictures is negative, with a soft edge."""
    cover = (0.5 - distance * scene.shape[-1] / 2).clamp(0, 1)[:, :, None]
    return scene + cover * (color - scene)


def _muted(count: int, generator: torch.Generator) -> torch.Tensor:
    """Colors of the ground, ``[B, 1, 3, 1, 1]``: bright or dark, and never as full as objects."""
    light, warm, green = torch.rand(3, count, generator=generator)
    light, warm, green = 0.15 + 0.6 * light, 0.24 * (warm - 0.5), 0.16 * (green - 0.5)
    return torch.stack([light + warm, light + green, light - warm], dim=1)[:, None, :, None, None]


def _leaves(
    canvas: Canvas, drift: torch.Tensor, count: int, generator: torch.Generator
) -> torch.Tensor:
    side = canvas.side * FINER
    x, y = _grid(side)
    scene = _muted(count, generator).expand(count, canvas.frames, 3, side, side)
    for _ in range(LEAVES):
        across, down, u = torch.rand(3, count, 1, generator=generator)
        # Numbers of discs fall with the cube of their size: occluding things of any distance.
        radius = (LEAST_LEAF**-2 + u * (LARGEST_LEAF**-2 - LEAST_LEAF**-2)) ** -0.5
        center_x = (2.6 * across - 1.3 + drift[0])[..., None, None]
        center_y = (2.6 * down - 1.3 + drift[1])[..., None, None]
        distance = torch.hypot(x - center_x, y - center_y) - radius[..., None, None]
        scene = _over(scene, _muted(count, generator), distance)
    return scene


def _object(
    canvas: Canvas,
    scene: torch.Tensor,
    labels: torch.Tensor,
    time: torch.Tensor,
    generator: torch.Generator,
) -> torch.Tensor:
    named = [canvas.named[canvas.prompts[label]] for label in labels.tolist()]
    across, down, size, angle, speed = torch.rand(5, len(named), 1, generator=generator) * 2 - 1
    motion = torch.tensor([n.motion for n in named]).T[..., None] * time * (1 + 0.2 * speed)
    center_x, center_y = 0.4 * across + motion[0], 0.4 * down + motion[1]
    radius = ((0.42 + 0.08 * size) * motion[2].exp())[..., None, None]
    x, y = _grid(scene.shape[-1])
    dx = (x - center_x[..., None, None]) / radius
    dy = (y - center_y[..., None, None]) / radius
    turn = (0.3 * angle)[..., None, None]
    u, v = dx * turn.cos() + dy * turn.sin(), dy * turn.cos() - dx * turn.sin()
    is_ball = torch.tensor([n.shape == "ball" for n in named])[:, None, None, None]
    distance = torch.where(is_ball, torch.hypot(u, v) - 1.0, torch.maximum(u.abs(), v.abs()) - 0.86)
    color = torch.tensor([n.color for n in named])[:, None, :, None, None]
    lit = (1.0 - 0.28 * (dx + dy).clamp(-1.5, 1.5))[:, :, None]
    return _over(scene, color * lit, distance * radius)


def _texture(
    canvas: Canvas, drift: torch.Tensor, count: int, generator: torch.Generator
) -> torch.Tensor:
    """A sum of waves ``[B, F, S, S]`` of unit variance with equal power in every octave."""
    side = canvas.side
    x, y = _grid(side)
    octave, angle, phase = torch.rand(3, count, WAVES, 1, 1, 1, generator=generator)
    cycles = LOWEST_WAVE * (side / 2 / LOWEST_WAVE) ** octave
    moved_x = x - drift[0][:, None, :, None, None]
    moved_y = y - drift[1][:, None, :, None, None]
    along = (2 * math.pi * angle).cos() * moved_x + (2 * math.pi * angle).sin() * moved_y
    waves = torch.cos(math.pi * cycles * along + 2 * math.pi * phase)
    return waves.sum(1) * math.sqrt(2 / WAVES)


# Luminance, blue against yellow, red against green; their means and deviations in these scenes.
_AXES = torch.tensor(
    [
        [1 / math.sqrt(3)] * 3,
        [-1 / math.sqrt(6), -1 / math.sqrt(6), 2 / math.sqrt(6)],
        [1 / math.sqrt(2), -1 / math.sqrt(2), 0.0],
    ]
)
_MEAN, _STD = torch.tensor([0.78, 0.0, 0.02]), torch.tensor([0.38, 0.20, 0.16])


def _mix() -> torch.Tensor:
    """``[16, 3]``: every channel looks at the color axes from its own side, evenly spread."""
    n = torch.arange(LATENT_CHANNELS, dtype=torch.float64)
    height = 1 - (2 * n + 1) / LATENT_CHANNELS
    angle = math.pi * (1 + math.sqrt(5)) * n
    ring = (1 - height**2).sqrt()
    return torch.stack([height, ring * angle.cos(), ring * angle.sin()], dim=1).float()


_MIX = _mix()


def to_latent(scene: torch.Tensor) -> torch.Tensor:
    """RGB ``[B, 3, F, S, S]`` in model space, ``[B, 16, F, S, S]`` of about unit variance."""
    axes = torch.einsum("ac,bcfhw->bafhw", _AXES, scene) - _MEAN[:, None, None, None]
    return torch.einsum("ka,bafhw->bkfhw", _MIX / _STD, axes)


def to_scene(latent: torch.Tensor) -> torch.Tensor:
    """The other way, by least squares; any side."""
    back = torch.linalg.pinv(_MIX / _STD)
    axes = torch.einsum("ak,bkfhw->bafhw", back, latent) + _MEAN[:, None, None, None]
    return torch.einsum("ac,bafhw->bcfhw", _AXES, axes).clamp(0, 1)


def smaller(latent: torch.Tensor, side: int) -> torch.Tensor:
    """The same pictures with fewer values a side: the low corner of their DCT.

    Written with SciPy, apart from what Progressive Resolution does, so that it can be compared.
    """
    spectrum = scipy.fft.dctn(latent.numpy(), axes=(-2, -1), norm="ortho")[..., :side, :side]
    found = scipy.fft.idctn(spectrum, axes=(-2, -1), norm="ortho")
    return torch.from_numpy(found * (side / latent.shape[-1]))

"""Pictures drawn by formula, the latent that holds them, and the prompts that name them.

Everything the demo model was trained on is in this file: eight coloured shapes as signed
distance functions, a fixed linear map between a 64x64 picture and a [16, 32, 32] latent, and a
table of text embeddings that comes from a cosine formula. No data set and no text encoder is
involved, so a training run can be repeated anywhere from a seed.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F

PICTURE_SIZE = 64
LATENT_CHANNELS = 16
LATENT_SIZE = PICTURE_SIZE // 2
USED_CHANNELS = 12  # 3 colours x 4 pixels of a 2x2 patch; the other 4 channels are always zero
TEXT_TOKENS = 8
TEXT_DIM = 64

UNCONDITIONAL = "(unconditional)"

# The host's Flux latent format: what a sampler returns is model_space / SCALE + SHIFT.
HOST_SCALE = 0.3611
HOST_SHIFT = 0.1159

Shape = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


def _circle(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.hypot(x, y) - 0.92


def _square(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.maximum(x.abs(), y.abs()) - 0.78


def _triangle(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    y = y - 0.22  # the centroid, not the bounding box, sits on the centre
    side = x.abs() * (math.sqrt(3) / 2) - y * 0.5
    return torch.maximum(side, y) - 0.55


def _star(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    # Fold the plane onto one of the ten mirrored wedges, where a five-pointed star is one line.
    outer, inner = 1.1, 0.5
    radius, angle = torch.hypot(x, y), torch.atan2(x, -y)
    wedge = math.pi / 5
    angle = (torch.remainder(angle + wedge, 2 * wedge) - wedge).abs()
    px, py = radius * torch.cos(angle), radius * torch.sin(angle)
    ax, ay = inner * math.cos(wedge) - outer, inner * math.sin(wedge)
    return (ay * (px - outer) - ax * py) / math.hypot(ax, ay)


def _ring(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return (torch.hypot(x, y) - 0.72).abs() - 0.24


def _cross(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    ax, ay = x.abs(), y.abs()
    bar = torch.maximum(ax - 0.98, ay - 0.32)
    return torch.minimum(bar, torch.maximum(ax - 0.32, ay - 0.98))


def _heart(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    # A square standing on its corner and two circles on its upper sides.
    x, y = x.abs(), 0.12 - y
    half = 0.52
    diamond = (x + y.abs()) / math.sqrt(2) - half
    lobe = torch.hypot(x - half / math.sqrt(2), y - half / math.sqrt(2)) - half
    return torch.minimum(diamond, lobe)


def _moon(x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    return torch.maximum(torch.hypot(x, y) - 0.98, 0.8 - torch.hypot(x - 0.48, y + 0.12))


_CATALOGUE: dict[str, tuple[tuple[float, float, float], Shape]] = {
    "red circle": ((0.92, 0.12, 0.12), _circle),
    "blue square": ((0.12, 0.28, 0.95), _square),
    "green triangle": ((0.10, 0.78, 0.20), _triangle),
    "yellow star": ((0.98, 0.88, 0.10), _star),
    "purple ring": ((0.62, 0.15, 0.85), _ring),
    "orange cross": ((1.00, 0.52, 0.05), _cross),
    "white heart": ((0.97, 0.97, 0.97), _heart),
    "cyan moon": ((0.10, 0.85, 0.92), _moon),
}
PROMPTS: tuple[str, ...] = tuple(_CATALOGUE)
_COLOURS = torch.tensor([colour for colour, _ in _CATALOGUE.values()])


def draw(
    labels: torch.Tensor,
    generator: torch.Generator,
    variety: float = 1.0,
    backdrop: float = 1.0,
) -> torch.Tensor:
    """Draw one random picture of each label.

    Parameters
    ----------
    labels : torch.Tensor
        Prompt indices in ``PROMPTS``, shape [B].
    generator : torch.Generator
        Source of position, size, rotation and background.
    variety : float
        How much pictures of one prompt differ: at 1 shapes lie anywhere inside the picture, at 0
        in the middle, all of one size and upright; backgrounds differ at least half as much.
    backdrop : float
        How many times stronger the brightness, slope and tint of backgrounds vary.

    Returns
    -------
    torch.Tensor
        RGB in 0..1, shape [B, 3, 64, 64].
    """
    count = labels.shape[0]
    size, tilt_x, tilt_y, angle, u, v, lum, warm, slope_x, slope_y = (
        torch.rand(10, count, 1, 1, generator=generator) * 2 - 1
    )
    axis = (torch.arange(PICTURE_SIZE) + 0.5) / (PICTURE_SIZE / 2) - 1
    grid_y, grid_x = axis[:, None], axis[None, :]

    radius = 0.58 - 0.08 * variety + 0.10 * variety * size
    room = (0.92 - radius) * variety  # keeps the whole shape inside the picture
    dx, dy = grid_x - room * tilt_x, grid_y - room * tilt_y
    turn = 0.20 * variety * angle
    x = (dx * turn.cos() + dy * turn.sin()) / radius
    y = (dy * turn.cos() - dx * turn.sin()) / radius

    distance = torch.empty_like(x)
    for index, (_, shape) in enumerate(_CATALOGUE.values()):
        rows = labels == index
        if rows.any():
            distance[rows] = shape(x[rows], y[rows])
    # One and a half pixels of soft edge: sharp enough to look drawn, smooth enough to learn fast.
    pixel = 2 / PICTURE_SIZE
    cover = (0.5 - distance * radius / (1.5 * pixel)).clamp(0, 1)[:, None]

    level = 0.10 * lum + 0.06 * (slope_x * grid_x + slope_y * grid_y)
    tint = torch.stack([0.05 * warm, 0.03 * u, 0.05 * v], dim=1)
    amount = backdrop * (0.5 + 0.5 * variety)
    background = 0.24 + 0.02 * (backdrop - 1) + amount * (level[:, None] + tint)
    colour = _COLOURS[labels][:, :, None, None]
    return (background * (1 - cover) + colour * cover).clamp(0, 1)


# Orthonormal colour axes (luminance, blue against yellow, red against green) ...
_COLOUR_AXES = torch.tensor(
    [
        [1 / math.sqrt(3)] * 3,
        [-1 / math.sqrt(6), -1 / math.sqrt(6), 2 / math.sqrt(6)],
        [1 / math.sqrt(2), -1 / math.sqrt(2), 0.0],
    ]
)
# ... and orthonormal 2x2 Haar patterns over the pixels (0,0) (0,1) (1,0) (1,1).
_HAAR = 0.5 * torch.tensor(
    [
        [1.0, 1.0, 1.0, 1.0],
        [1.0, -1.0, 1.0, -1.0],
        [1.0, 1.0, -1.0, -1.0],
        [1.0, -1.0, -1.0, 1.0],
    ]
)
# Means and deviations of the average (first row) and the three detail patterns of each colour
# axis. The details are given half of unit variance: they are nearly always zero, and at full
# variance the few edge pixels would be far outliers.
_MEAN = torch.tensor([[0.967, -0.009, 0.020], [0.0] * 3, [0.0] * 3, [0.0] * 3])
_STD = torch.tensor(
    [
        [0.456, 0.308, 0.253],
        [0.100, 0.073, 0.058],
        [0.100, 0.073, 0.058],
        [0.035, 0.021, 0.019],
    ]
)


def picture_to_model(picture: torch.Tensor) -> torch.Tensor:
    """Map RGB in 0..1, shape [B, 3, 64, 64], to model space, shape [B, 16, 32, 32]."""
    patches = F.pixel_unshuffle(picture, 2).unflatten(1, (3, 4))
    latent = torch.einsum("kp,ac,bcphw->bkahw", _HAAR, _COLOUR_AXES, patches)
    latent = (latent - _MEAN[:, :, None, None]) / _STD[:, :, None, None]
    return F.pad(latent.flatten(1, 2), (0, 0, 0, 0, 0, LATENT_CHANNELS - USED_CHANNELS))


def model_to_picture(latent: torch.Tensor) -> torch.Tensor:
    """Map model space, shape [B, 16, H, W], to RGB in 0..1, shape [B, 3, 2H, 2W]."""
    used = latent[:, :USED_CHANNELS].unflatten(1, (4, 3))
    mean, std = _MEAN.to(latent)[:, :, None, None], _STD.to(latent)[:, :, None, None]
    axes, haar = _COLOUR_AXES.to(latent), _HAAR.to(latent)
    patches = torch.einsum("kp,ac,bkahw->bcphw", haar, axes, used * std + mean)
    return F.pixel_shuffle(patches.flatten(1, 2), 2).clamp(0, 1)


def host_to_model(samples: torch.Tensor) -> torch.Tensor:
    """Undo the shift and scale that the host applies to a sampler's output, any shape."""
    return (samples - HOST_SHIFT) * HOST_SCALE


def text_embedding(prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Embedding of a prompt: tokens [1, 8, 64] and pooled vector [1, 64].

    A quadratic cosine chirp stands in for a text encoder.
    """
    row = 0 if prompt == UNCONDITIONAL else PROMPTS.index(prompt) + 1
    values = chirp(row, (TEXT_TOKENS + 1) * TEXT_DIM)
    tokens, pooled = values[:-TEXT_DIM], values[-TEXT_DIM:]
    return tokens.view(1, TEXT_TOKENS, TEXT_DIM), pooled.view(1, TEXT_DIM)


def chirp(row: int, count: int) -> torch.Tensor:
    """Numbers ``[count]`` of unit variance that stand for one prompt.

    They need no stored numbers, are the same on every machine, and those of two different rows
    come out nearly orthogonal.
    """
    n = torch.arange(count, dtype=torch.float64) + 1
    golden = (math.sqrt(5) - 1) / 2
    phase = torch.remainder(golden * (row + 1) * n * (n + 1) / 2 + 0.37 * row, 1.0)
    return (math.sqrt(2) * torch.cos(2 * math.pi * phase)).float()

"""How strong a model's pictures are at each frequency, and when that begins to matter."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch

from ..errors import AccelerationError
from .corner import dct_matrix


@dataclass(frozen=True)
class PowerLaw:
    """``P(w) = A w^-β``: power of latents at w cycles a picture, that of white noise being 1.

    A and β are fitted to the orthonormal spectra of many encoded pictures, as in Spectral
    Progressive Diffusion (arXiv 2605.18736).
    """

    A: float
    beta: float

    def at(self, frequency: float) -> float:
        """Power at a frequency in cycles a picture."""
        return self.A * frequency**-self.beta

    def resized(self, ratio: float) -> PowerLaw:
        """The same kind of pictures in latents whose side is ``ratio`` times as long.

        What a photograph holds at so many values a cycle does not depend on how much it shows.
        """
        return PowerLaw(self.A * ratio**self.beta, self.beta)

    def begins(self, frequency: float, delta: float) -> float:
        """The share of noise below which a frequency is more than noise.

        Parameters
        ----------
        delta
            How much of the picture at this frequency may be known before: a share of ``1 + P``.

        Notes
        -----
        ``1 / (1 + sqrt(δ / (P (1 + P - δ))))``, the activation time of arXiv 2605.18736.
        """
        power = self.at(frequency)
        if delta >= 1.0 + power:
            return 0.0
        return 1.0 / (1.0 + math.sqrt(delta / (power * (1.0 + power - delta))))

    def delta_of(self, frequency: float, share: float) -> float:
        """The δ with which a frequency begins at a share of noise: ``begins`` the other way."""
        power = self.at(frequency)
        quotient = ((1.0 - share) / share) ** 2 * power
        return quotient * (1.0 + power) / (1.0 + quotient)


def fit(latents: torch.Tensor) -> PowerLaw:
    """The power law of some latents.

    Parameters
    ----------
    latents
        ``[B, C, …, H, W]`` as the model sees them, unpacked; a dozen pictures give a usable fit.

    Raises
    ------
    AccelerationError
        When they are too small or constant.
    """
    height, width = latents.shape[-2:]
    if min(height, width) < 16:
        raise AccelerationError(
            f"the latents are {height} x {width}: at least 16 x 16 are needed to fit a spectrum."
        )
    values = latents.double().cpu()
    spectrum = dct_matrix(height) @ values @ dct_matrix(width).T
    power = spectrum.square().flatten(0, -3).mean(0)
    # Order k of a DCT is k / 2 cycles.
    rows, columns = (torch.arange(side, dtype=torch.float64) / 2 for side in (height, width))
    radius = torch.hypot(rows[:, None], columns)
    x, y = [], []
    for cycles in range(2, min(height, width) // 2):
        ring = (radius >= cycles - 0.5) & (radius < cycles + 0.5)
        if (mean := power[ring].mean().item()) > 0:
            x.append(radius[ring].log().mean().item())
            y.append(math.log(mean))
    if len(x) < 4:
        raise AccelerationError("the latents are constant: encode some pictures first.")
    middle_x, middle_y = sum(x) / len(x), sum(y) / len(y)
    along = sum((a - middle_x) * (b - middle_y) for a, b in zip(x, y, strict=True))
    slope = along / sum((a - middle_x) ** 2 for a in x)
    return PowerLaw(math.exp(middle_y - slope * middle_x), -slope)

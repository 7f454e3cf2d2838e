"""MiniMax H3: one packed sequence ``[L, D]`` of text, video and audio tokens.

Picture and sound are one latent, and the sound has a noise schedule of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from .base import IMAGE, Arg, BlockStack, Family, LatentPart, OwnNoise


@dataclass(frozen=True)
class Shifted(OwnNoise):
    """Noise shifted by ``here`` where the sampler's is shifted by ``given``.

    A shift a (arXiv 2403.03206, 5.3.2) takes b of an even grid to ``a b / (1 + (a - 1) b)``.
    """

    given: float
    here: float

    def _even(self, sigma: float) -> float:
        sigma = min(sigma, 1.0)  # a little above 1 the shift has a pole
        return sigma / (self.given - (self.given - 1.0) * sigma)

    def sigma(self, sigma: float) -> float:
        even = self._even(sigma)
        return self.here * even / (1.0 + (self.here - 1.0) * even)

    def slope(self, sigma: float) -> float:
        even = self._even(sigma)
        up, down = 1.0 + (self.given - 1.0) * even, 1.0 + (self.here - 1.0) * even
        return self.here / self.given * (up / down) ** 2


def sound_noise(network: Any, options: Mapping[str, Any]) -> OwnNoise:
    """The sound's noise as the host has it: from the network, or set by the host's own node."""
    picture, sound = (
        float(options.get(f"minimax_h3_{name}", getattr(network, name)))
        for name in ("sigma_shift_video", "sigma_shift_audio")
    )
    return Shifted(picture, sound)


FAMILY = Family(
    name="MiniMax H3",
    classes=("comfy.ldm.minimax.model.MiniMaxH3Model",),
    stacks=(BlockStack("blocks", {IMAGE: Arg("x", 0)}, (IMAGE,), in_place=True),),
    is_video=True,
    models="MiniMax H3",
    parts=(LatentPart("picture"), LatentPart("sound", sound_noise)),
)

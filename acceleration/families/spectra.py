"""Spectra of the latents of autoencoders that several families share.

The two fits are SGLang-Diffusion's (``stages/progressive_resolution``, 0.5.23); it uses that of
FLUX.1 for FLUX.2, Qwen-Image and Ideogram 4 as well, which makes them guesses here as there.
"""

from __future__ import annotations

from .base import Spectrum

FLUX_1 = Spectrum(
    203.615097, 1.915461, "fitted to FLUX.1's autoencoder on 105 000 pictures (SGLang-Diffusion)"
)
WAN_2_1 = Spectrum(
    219.484718, 2.422687, "fitted to Wan 2.1's autoencoder on 9050 videos (SGLang-Diffusion)"
)

_GUESS = "a guess: that of {}, as nobody has fitted one for this autoencoder"

PICTURES = FLUX_1._replace(source=_GUESS.format("FLUX.1"), guess=True)
VIDEOS = WAN_2_1._replace(source=_GUESS.format("Wan 2.1"), guess=True)
FLUX_2 = PICTURES._replace(packing=2)
"""Each channel of FLUX.2's latents is one corner of squares of 2 x 2 values."""

"""Chroma and Chroma Radiance: FLUX.1's blocks with modulations from one distilled layer."""

from . import spectra
from .base import Family
from .flux import FLUX_SPLIT, FLUX_STACKS, FLUX_TAP

FAMILY = Family(
    name="Chroma",
    classes=("comfy.ldm.chroma.model.Chroma",),
    stacks=FLUX_STACKS,
    models="Chroma, Chroma Radiance",
    tap=FLUX_TAP,
    spectrum=lambda network: spectra.FLUX_1 if network.in_channels == 64 else spectra.PICTURES,
    split=FLUX_SPLIT,
)

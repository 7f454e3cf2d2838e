"""Ideogram 4: one stream of packed text and image tokens."""

from . import spectra
from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="Ideogram 4",
    classes=("comfy.ldm.ideogram4.model.Ideogram4Transformer",),
    stacks=(BlockStack("layers", {IMAGE: Arg("x", 0)}, (IMAGE,)),),
    models="Ideogram 4",
    spectrum=lambda network: spectra.FLUX_2,
)

"""ERNIE-Image: one stream with the picture's tokens before the prompt's."""

from . import spectra
from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="ERNIE-Image",
    classes=("comfy.ldm.ernie.model.ErnieImageModel",),
    stacks=(BlockStack("layers", {IMAGE: Arg("x", 0)}, (IMAGE,)),),
    models="ERNIE-Image",
    spectrum=lambda network: spectra.FLUX_2,
)

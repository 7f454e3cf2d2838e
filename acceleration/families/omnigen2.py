"""OmniGen2: one stream with the prompt's and reference tokens before the picture's."""

from . import spectra
from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="OmniGen2",
    classes=("comfy.ldm.omnigen.omnigen2.OmniGen2Transformer2DModel",),
    stacks=(BlockStack("layers", {IMAGE: Arg("hidden_states", 0)}, (IMAGE,)),),
    models="OmniGen2",
    spectrum=lambda network: spectra.FLUX_1,
)

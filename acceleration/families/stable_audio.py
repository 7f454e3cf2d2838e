"""Stable Audio: one stream with cross-attention."""

from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="Stable Audio",
    classes=("comfy.ldm.audio.dit.AudioDiffusionTransformer",),
    stacks=(BlockStack("transformer.layers", {IMAGE: Arg("x", 0)}, (IMAGE,)),),
    models="Stable Audio Open, Stable Audio 3",
    one_size="its latent is sound, which has no height and width",
)

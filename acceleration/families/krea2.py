"""Krea 2: one stream with the prompt's tokens before the picture's."""

from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="Krea 2",
    classes=("comfy.ldm.krea2.model.SingleStreamDiT",),
    stacks=(BlockStack("blocks", {IMAGE: Arg("x", 0)}, (IMAGE,)),),
    models="Krea 2",
)

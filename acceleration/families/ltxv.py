"""LTX-Video: one stream. Its blocks write into their input."""

from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="LTX-Video",
    classes=("comfy.ldm.lightricks.model.LTXVModel",),
    stacks=(BlockStack("transformer_blocks", {IMAGE: Arg("x", 0)}, (IMAGE,)),),
    is_video=True,
    models="LTX-Video 0.9 to 0.9.8",
)

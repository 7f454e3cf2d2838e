"""Wan 2.1 and 2.2: text and time enter every block by attention and modulation, one stream."""

from .base import IMAGE, BlockStack, Family

FAMILY = Family(
    name="Wan",
    classes=("comfy.ldm.wan.model.WanModel",),
    stacks=(BlockStack("blocks", {IMAGE: ("x", 0)}, (IMAGE,)),),
    is_video=True,
)

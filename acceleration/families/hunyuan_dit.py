"""HunyuanDiT: one stream with long skip connections from the first half to the second."""

from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="HunyuanDiT",
    classes=("comfy.ldm.hydit.models.HunYuanDiT",),
    stacks=(BlockStack("blocks", {IMAGE: Arg("x", 0)}, (IMAGE,)),),
    last_blocks_need_all=True,
    models="HunyuanDiT 1.0 to 1.2",
)

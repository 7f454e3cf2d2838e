"""Wan 2.1 and 2.2: text and time enter every block by attention and modulation, one stream.

VACE, S2V, Animate and Dancer add to the hidden state between blocks; those adds are inside the
residual like a ControlNet's.
"""

from .base import IMAGE, Arg, BlockStack, Family

WAN_STACKS = (BlockStack("blocks", {IMAGE: Arg("x", 0)}, (IMAGE,)),)

FAMILY = Family(
    name="Wan",
    classes=("comfy.ldm.wan.model.WanModel",),
    stacks=WAN_STACKS,
    is_video=True,
    models="Wan 2.1 T2V, I2V, FLF2V, VACE, Camera, Fun, HuMo, SCAIL; Wan 2.2 5B, 14B, S2V, Animate",
)

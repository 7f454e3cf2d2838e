"""Stable Diffusion 3 and 3.5: joint blocks, text first in call and return.

The last block returns no text. Blocks of 3.5 medium attend once more, to the image alone.
"""

from .base import IMAGE, JOINED, TEXT, Arg, BlockStack, Family, Tap
from .tokens import TokenPlan

FAMILY = Family(
    name="SD3",
    classes=("comfy.ldm.modules.diffusionmodules.mmdit.MMDiT",),
    stacks=(
        BlockStack("joint_blocks", {TEXT: Arg("context", 0), IMAGE: Arg("x", 1)}, (TEXT, IMAGE)),
    ),
    models="Stable Diffusion 3, 3.5 medium, 3.5 large",
    tap=Tap("x_block.attn.qkv"),
    split={"joint_blocks": TokenPlan(control="output", over=(JOINED, IMAGE))},
)

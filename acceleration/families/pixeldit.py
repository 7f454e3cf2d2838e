"""PixelDiT and PiD: the patch blocks are cached; the pixel blocks after them always run."""

from .base import IMAGE, TEXT, Arg, BlockStack, Family

FAMILY = Family(
    name="PixelDiT",
    classes=("comfy.ldm.pixeldit.model.PixDiT_T2I",),
    stacks=(BlockStack("patch_blocks", {IMAGE: Arg("x", 0), TEXT: Arg("y", 1)}, (IMAGE, TEXT)),),
    models="PixelDiT, PiD",
)

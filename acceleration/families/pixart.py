"""PixArt-α and PixArt-Σ: one stream with cross-attention."""

from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="PixArt",
    classes=("comfy.ldm.pixart.pixartms.PixArtMS",),
    stacks=(BlockStack("blocks", {IMAGE: Arg("x", 0)}, (IMAGE,)),),
    models="PixArt-α, PixArt-Σ",
)

"""Kandinsky 5: one visual stream with cross-attention; the text blocks before it always run."""

from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="Kandinsky 5",
    classes=("comfy.ldm.kandinsky5.model.Kandinsky5",),
    stacks=(BlockStack("visual_transformer_blocks", {IMAGE: Arg("visual_embed", 0)}, (IMAGE,)),),
    is_video=True,
    models="Kandinsky 5 video, image",
)

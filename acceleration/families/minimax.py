"""MiniMax H3: one packed sequence ``[L, D]`` of text, video and audio tokens."""

from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="MiniMax H3",
    classes=("comfy.ldm.minimax.model.MiniMaxH3Model",),
    stacks=(BlockStack("blocks", {IMAGE: Arg("x", 0)}, (IMAGE,), in_place=True),),
    is_video=True,
    models="MiniMax H3",
)

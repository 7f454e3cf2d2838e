"""MiniMax H3: one packed sequence ``[L, D]`` of text, video and audio tokens.

Picture and sound are one latent; the sound's noise has a shift of its own (3, the picture's is 12).
"""

from .base import IMAGE, Arg, BlockStack, Family, LatentPart

FAMILY = Family(
    name="MiniMax H3",
    classes=("comfy.ldm.minimax.model.MiniMaxH3Model",),
    stacks=(BlockStack("blocks", {IMAGE: Arg("x", 0)}, (IMAGE,), in_place=True),),
    is_video=True,
    parts=(LatentPart("picture"), LatentPart("sound", own_noise=True)),
    models="MiniMax H3",
)

"""LTX-2: video and audio travel through the blocks as one tuple, and both are results."""

from .base import IMAGE, Arg, BlockStack, Family, LatentPart, Tap

AUDIO = "audio"

FAMILY = Family(
    name="LTX-2",
    classes=("comfy.ldm.lightricks.av_model.LTXAVModel",),
    stacks=(
        BlockStack(
            "transformer_blocks",
            {IMAGE: Arg("x", 0, item=0), AUDIO: Arg("x", 0, item=1)},
            (IMAGE, AUDIO),
            in_place=True,
        ),
    ),
    results=(IMAGE, AUDIO),
    is_video=True,
    packed_latents=True,
    parts=(LatentPart("picture"), LatentPart("sound")),
    resident_from_gb=70.0,
    models="LTX-2, LTX-2.3",
    tap=Tap("attn1"),
)

"""HiDream I1: image tokens come first, and every block gets fresh prompt tokens appended."""

from .base import IMAGE, IMAGE_FIRST, JOINED, TEXT, Arg, BlockStack, Family

FAMILY = Family(
    name="HiDream I1",
    classes=("comfy.ldm.hidream.model.HiDreamImageTransformer2DModel",),
    stacks=(
        BlockStack(
            "double_stream_blocks",
            {IMAGE: Arg("image_tokens", 0), TEXT: Arg("text_tokens", 2)},
            (IMAGE, TEXT),
        ),
        BlockStack(
            "single_stream_blocks",
            {JOINED: Arg("image_tokens", 0)},
            (JOINED,),
            joined_order=IMAGE_FIRST,
        ),
    ),
    models="HiDream I1 full, dev, fast; E1",
)

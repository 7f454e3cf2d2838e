"""CogVideoX: two streams, image returned first."""

from .base import IMAGE, TEXT, Arg, BlockStack, Family

FAMILY = Family(
    name="CogVideoX",
    classes=("comfy.ldm.cogvideo.model.CogVideoXTransformer3DModel",),
    stacks=(
        BlockStack(
            "blocks",
            {IMAGE: Arg("hidden_states", 0), TEXT: Arg("encoder_hidden_states", 1)},
            (IMAGE, TEXT),
        ),
    ),
    is_video=True,
    models="CogVideoX 2B, 5B, I2V",
)

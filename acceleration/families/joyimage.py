"""JoyImage: two streams, image returned first."""

from .base import IMAGE, TEXT, Arg, BlockStack, Family

FAMILY = Family(
    name="JoyImage",
    classes=("comfy.ldm.joyimage.model.JoyImageTransformer3DModel",),
    stacks=(
        BlockStack(
            "double_blocks",
            {IMAGE: Arg("hidden_states", 0), TEXT: Arg("encoder_hidden_states", 1)},
            (IMAGE, TEXT),
        ),
    ),
    models="JoyImage",
)

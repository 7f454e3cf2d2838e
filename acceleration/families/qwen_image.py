"""Qwen-Image and Qwen-Image-Edit: two streams all the way, returned text first."""

from .base import IMAGE, TEXT, Arg, BlockStack, Family, Tap

QWEN_STACKS = (
    BlockStack(
        "transformer_blocks",
        {IMAGE: Arg("hidden_states", 0), TEXT: Arg("encoder_hidden_states", 1)},
        (TEXT, IMAGE),
    ),
)

QWEN_TAP = Tap("attn", keyword="hidden_states")

FAMILY = Family(
    name="Qwen-Image",
    classes=("comfy.ldm.qwen_image.model.QwenImageTransformer2DModel",),
    stacks=QWEN_STACKS,
    models="Qwen-Image, Qwen-Image-Edit, Qwen-Image-Layered",
    tap=QWEN_TAP,
)

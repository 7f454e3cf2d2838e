"""Cosmos Predict 2 and Anima: hidden states are ``[B, T, H, W, D]``, float32 under float16."""

from .base import IMAGE, Arg, BlockStack, Family, Tap

FAMILY = Family(
    name="Cosmos Predict2",
    classes=("comfy.ldm.cosmos.predict2.MiniTrainDIT",),
    stacks=(BlockStack("blocks", {IMAGE: Arg("x_B_T_H_W_D", 0)}, (IMAGE,)),),
    is_video=True,
    models="Cosmos Predict2, Anima",
    tap=Tap("self_attn"),
)

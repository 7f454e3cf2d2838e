"""LTX-Video: one stream."""

from .base import IMAGE, Arg, BlockStack, Family, Tap, TeaCacheFit
from .tokens import Along, TokenPlan

FAMILY = Family(
    name="LTX-Video",
    classes=("comfy.ldm.lightricks.model.LTXVModel",),
    stacks=(BlockStack("transformer_blocks", {IMAGE: Arg("x", 0)}, (IMAGE,), in_place=True),),
    is_video=True,
    packed_latents=True,
    models="LTX-Video 0.9 to 0.9.8",
    tap=Tap("attn1"),
    fits=(
        TeaCacheFit(
            "ltxv",
            (21.4700694, -12.8016453, 2.31279151, 0.792487521, 0.00969274326),
            0.05,
        ),
    ),
    choose_fit=lambda network: "ltxv",
    split={
        "transformer_blocks": TokenPlan(
            (
                Along(Arg("timestep", 3), 1, IMAGE),
                Along(Arg("pe", 4), 1, IMAGE),
                # Of guides with a strength of their own; a tensor in no version of the host.
                Along(Arg("self_attention_mask", 6), -1, IMAGE),
            ),
            attention="attn1",
        )
    },
)

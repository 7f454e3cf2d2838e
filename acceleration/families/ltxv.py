"""LTX-Video: one stream."""

from .base import IMAGE, Arg, BlockStack, Family, Tap, TeaCacheFit

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
)

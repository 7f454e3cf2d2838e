"""Mochi: image and text streams of different width; the last block leaves the text alone."""

from .base import IMAGE, TEXT, Arg, BlockStack, Family, Tap, TeaCacheFit

FAMILY = Family(
    name="Mochi",
    classes=("comfy.ldm.genmo.joint_model.asymm_models_joint.AsymmDiTJoint",),
    stacks=(BlockStack("blocks", {IMAGE: Arg("x", 0), TEXT: Arg("y", 2)}, (IMAGE, TEXT)),),
    is_video=True,
    models="Mochi 1",
    tap=Tap("attn.qkv_x"),
    fits=(
        TeaCacheFit(
            "mochi",
            (-3512.41319, 811.675948, -60.9400215, 2.42429681, 0.00305291719),
            0.06,
        ),
    ),
    choose_fit=lambda network: "mochi",
)

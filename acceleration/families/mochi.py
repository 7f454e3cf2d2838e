"""Mochi: image and text streams of different width; the last block leaves the text alone."""

from .base import IMAGE, TEXT, Arg, BlockStack, Family

FAMILY = Family(
    name="Mochi",
    classes=("comfy.ldm.genmo.joint_model.asymm_models_joint.AsymmDiTJoint",),
    stacks=(BlockStack("blocks", {IMAGE: Arg("x", 0), TEXT: Arg("y", 2)}, (IMAGE, TEXT)),),
    is_video=True,
    models="Mochi 1",
)

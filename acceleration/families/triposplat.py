"""TripoSplat: one stream of splats, condition and camera."""

from .base import IMAGE, Arg, BlockStack, Family, LatentPart

FAMILY = Family(
    name="TripoSplat",
    classes=("comfy.ldm.triposplat.model.LatentSeqMMFlowModel",),
    stacks=(BlockStack("blocks", {IMAGE: Arg("x", 0)}, (IMAGE,)),),
    models="TripoSplat",
    parts=(LatentPart("splats"), LatentPart("camera")),
)

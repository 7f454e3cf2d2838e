"""TripoSplat: one stream of splats, condition and camera."""

from .base import IMAGE, Arg, BlockStack, Family, LatentPart

FAMILY = Family(
    parts=(LatentPart("splats"), LatentPart("camera")),
    name="TripoSplat",
    classes=("comfy.ldm.triposplat.model.LatentSeqMMFlowModel",),
    stacks=(BlockStack("blocks", {IMAGE: Arg("x", 0)}, (IMAGE,)),),
    models="TripoSplat",
    one_size="its latent is a shape in space, which has no height and width",
)

"""ACE-Step 1: music, one stream."""

from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="ACE-Step",
    classes=("comfy.ldm.ace.model.ACEStepTransformer2DModel",),
    stacks=(BlockStack("transformer_blocks", {IMAGE: Arg("hidden_states", 0)}, (IMAGE,)),),
    models="ACE-Step 1",
    one_size="its latent is sound, which has no height and width",
)

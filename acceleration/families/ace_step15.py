"""ACE-Step 1.5: music, one stream in the decoder; the encoders before it always run."""

from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="ACE-Step 1.5",
    classes=("comfy.ldm.ace.ace_step15.AceStepConditionGenerationModel",),
    stacks=(BlockStack("decoder.layers", {IMAGE: Arg("hidden_states", 0)}, (IMAGE,)),),
    models="ACE-Step 1.5",
    one_size="its latent is sound, which has no height and width",
)

"""AuraFlow: double layers text first, then single layers on the joined tokens."""

from .base import IMAGE, JOINED, TEXT, Arg, BlockStack, Family

FAMILY = Family(
    name="AuraFlow",
    classes=("comfy.ldm.aura.mmdit.MMDiT",),
    stacks=(
        BlockStack("double_layers", {TEXT: Arg("c", 0), IMAGE: Arg("x", 1)}, (TEXT, IMAGE)),
        BlockStack("single_layers", {JOINED: Arg("cx", 0)}, (JOINED,)),
    ),
    models="AuraFlow, Pony V7",
)

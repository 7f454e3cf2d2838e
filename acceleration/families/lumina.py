"""NextDiT: Lumina-Image 2 and Z-Image, also in pixel space.

One stream that holds the prompt's tokens before the picture's. The refiner layers before the main
ones always run.
"""

from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="NextDiT",
    classes=("comfy.ldm.lumina.model.NextDiT",),
    stacks=(BlockStack("layers", {IMAGE: Arg("x", 0)}, (IMAGE,)),),
    models="Z-Image, Z-Image-Turbo, Z-Image pixel space, Lumina-Image 2",
)

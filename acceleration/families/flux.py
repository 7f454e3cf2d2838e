"""FLUX.1 (dev, schnell, Kontext, Fill, Krea, LongCat, Ovis …) and FLUX.2.

FLUX.2 hands its blocks ready modulations in place of ``vec``; the streams are the same. Kontext's
reference tokens follow the picture's in the image stream.
"""

from .base import IMAGE, JOINED, TEXT, Arg, BlockStack, Family

FLUX_STACKS = (
    BlockStack("double_blocks", {IMAGE: Arg("img", 0), TEXT: Arg("txt", 1)}, (IMAGE, TEXT)),
    BlockStack("single_blocks", {JOINED: Arg("x", 0)}, (JOINED,)),
)

FAMILY = Family(
    name="FLUX",
    classes=("comfy.ldm.flux.model.Flux",),
    stacks=FLUX_STACKS,
    models="FLUX.1 dev, schnell, Kontext, Fill, Krea; FLUX.2 dev, klein; LongCat-Image; Ovis-Image",
)

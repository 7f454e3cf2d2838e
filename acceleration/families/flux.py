"""FLUX.1 (dev, schnell, Kontext, Fill, Krea …) and FLUX.2: comfy.ldm.flux.model.Flux.

FLUX.2 hands its blocks ready modulations in place of ``vec``; the streams are the same. Kontext's
reference tokens follow the picture's in the image stream.
"""

from .base import IMAGE, JOINED, TEXT, BlockStack, Family

FLUX_STACKS = (
    BlockStack("double_blocks", {IMAGE: ("img", 0), TEXT: ("txt", 1)}, (IMAGE, TEXT)),
    BlockStack("single_blocks", {JOINED: ("x", 0)}, (JOINED,)),
)

FAMILY = Family(name="FLUX", classes=("comfy.ldm.flux.model.Flux",), stacks=FLUX_STACKS)

"""Mage-Flow: blocks called as Qwen-Image's."""

from . import spectra
from .base import Family
from .qwen_image import QWEN_STACKS, QWEN_TAP

FAMILY = Family(
    name="Mage-Flow",
    classes=("comfy.ldm.mage_flow.model.MageFlowTransformer2DModel",),
    stacks=QWEN_STACKS,
    models="Mage-Flow",
    tap=QWEN_TAP,
    spectrum=lambda network: spectra.FLUX_2,
)

"""Lens: blocks called as Qwen-Image's."""

from . import spectra
from .base import Family
from .qwen_image import QWEN_STACKS, QWEN_TAP

FAMILY = Family(
    name="Lens",
    classes=("comfy.ldm.lens.model.LensTransformer2DModel",),
    stacks=QWEN_STACKS,
    models="Lens",
    tap=QWEN_TAP,
    spectrum=lambda network: spectra.FLUX_2,
)

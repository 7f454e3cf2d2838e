"""Hunyuan3D 2: FLUX-like."""

from .base import Family
from .flux import FLUX_STACKS, FLUX_TAP

FAMILY = Family(
    name="Hunyuan3D 2",
    classes=("comfy.ldm.hunyuan3d.model.Hunyuan3Dv2",),
    stacks=FLUX_STACKS,
    models="Hunyuan3D 2, 2 mini",
    tap=FLUX_TAP,
    one_size="its latent is a shape in space, which has no height and width",
)

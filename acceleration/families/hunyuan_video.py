"""HunyuanVideo 1 and 1.5, SkyReels, HunyuanImage 2.1: FLUX-like, also in the order of tokens."""

from .base import Family
from .flux import FLUX_STACKS

FAMILY = Family(
    name="HunyuanVideo",
    classes=("comfy.ldm.hunyuan_video.model.HunyuanVideo",),
    stacks=FLUX_STACKS,
    is_video=True,
    models="HunyuanVideo, HunyuanVideo 1.5, SkyReels I2V, HunyuanImage 2.1",
)

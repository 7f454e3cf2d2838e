"""HunyuanVideo 1 and 1.5, SkyReels, HunyuanImage 2.1: FLUX-like, also in the order of tokens."""

from .base import Family, TeaCacheFit
from .flux import FLUX_STACKS, FLUX_TAP

FAMILY = Family(
    name="HunyuanVideo",
    classes=("comfy.ldm.hunyuan_video.model.HunyuanVideo",),
    stacks=FLUX_STACKS,
    is_video=True,
    models="HunyuanVideo, HunyuanVideo 1.5, SkyReels I2V, HunyuanImage 2.1",
    tap=FLUX_TAP,
    fits=(
        TeaCacheFit(
            "hunyuan_video",
            (733.226126, -401.131952, 67.5869174, -3.149878, 0.0961237896),
            0.15,
        ),
    ),
    choose_fit=lambda network: "hunyuan_video",
)

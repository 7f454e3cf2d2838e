"""HunyuanVideo 1 and 1.5, SkyReels, HunyuanImage 2.1: FLUX-like, also in the order of tokens."""

from .base import JOINED, Arg, Family, TeaCacheFit
from .flux import FLUX_DOUBLE, FLUX_STACKS, FLUX_TAP
from .tokens import Along, Ranges, TokenPlan

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
    split={
        "double_blocks": FLUX_DOUBLE,
        "single_blocks": TokenPlan(
            (
                Along(Arg("pe", 2), 2, JOINED),
                Along(Arg("attn_mask", 3), -1, JOINED),
                Ranges(Arg("modulation_dims", 4), JOINED),
            ),
            control="output",
        ),
    },
)

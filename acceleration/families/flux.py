"""FLUX.1 (dev, schnell, Kontext, Fill, Krea, LongCat, Ovis …) and FLUX.2.

FLUX.2 hands its blocks ready modulations in place of ``vec``; the streams are the same. Kontext's
reference tokens follow the picture's in the image stream.
"""

from . import spectra
from .base import IMAGE, JOINED, TEXT, Arg, BlockStack, CacheDiTPreset, Family, Tap, TeaCacheFit
from .tokens import LOCAL_TEXT, Along, Ranges, TokenPlan

FLUX_STACKS = (
    BlockStack(
        "double_blocks",
        {IMAGE: Arg("img", 0), TEXT: Arg("txt", 1)},
        (IMAGE, TEXT),
        in_place=True,
    ),
    BlockStack("single_blocks", {JOINED: Arg("x", 0)}, (JOINED,), in_place=True),
)

FLUX_DOUBLE = TokenPlan(
    (
        Along(Arg("pe", 3), 2, JOINED),
        Along(Arg("attn_mask", 4), -1, JOINED),
        Ranges(Arg("modulation_dims_img", 5), IMAGE),
        Ranges(Arg("modulation_dims_txt", 6), TEXT),
    ),
    control="input",
)
# The host adds the length of the text that it sees to the ranges of the image.
FLUX_SPLIT = {
    "double_blocks": FLUX_DOUBLE,
    "single_blocks": TokenPlan(
        (
            Along(Arg("pe", 2), 2, JOINED),
            Along(Arg("attn_mask", 3), -1, JOINED),
            Ranges(Arg("modulation_dims", 4), LOCAL_TEXT),
        ),
        control="output",
    ),
}

# The modulated, normed input of the first block: what its attention projects.
FLUX_TAP = Tap("img_attn.qkv")


FAMILY = Family(
    name="FLUX",
    classes=("comfy.ldm.flux.model.Flux",),
    stacks=FLUX_STACKS,
    models="FLUX.1 dev, schnell, Kontext, Fill, Krea; FLUX.2 dev, klein; LongCat-Image; Ovis-Image",
    tap=FLUX_TAP,
    fits=(
        TeaCacheFit(
            "flux",
            (498.651651, -283.781631, 55.8554382, -3.82021401, 0.264230861),
            0.4,
        ),
        TeaCacheFit(
            "flux-kontext",
            (-1046.55119, 312.563399, -16.9500694, 0.410995971, 0.0374537863),
            0.22,
        ),
    ),
    choose_fit=lambda network: "flux" if not network.params.global_modulation else None,
    # For FLUX.2 cache-dit's example gives the single blocks three times the threshold of the
    # double blocks. That has no counterpart here, where one decision covers both.
    cache_dit=(
        CacheDiTPreset(
            "FLUX.1 dev, 50 steps",
            {
                "residual_diff_threshold": 0.2,
                "max_continuous_cached_steps": 4,
                "calibrator": "taylorseer",
            },
            "cache-dit, bench/cache, DBCache(S) + TS",
        ),
        CacheDiTPreset(
            "FLUX.1 dev, 50 steps, faster",
            {"max_continuous_cached_steps": 6, "calibrator": "taylorseer"},
            "cache-dit, bench/cache, DBCache(M) + TS",
        ),
    ),
    spectrum=lambda network: spectra.FLUX_2 if network.params.global_modulation else spectra.FLUX_1,
    split=FLUX_SPLIT,
)

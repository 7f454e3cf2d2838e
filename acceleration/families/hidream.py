"""HiDream I1: image tokens come first, and every block gets fresh prompt tokens appended."""

from . import spectra
from .base import (
    HIDDEN_STATE,
    IMAGE,
    IMAGE_FIRST,
    JOINED,
    TEXT,
    Arg,
    BlockStack,
    Family,
    Tap,
    TeaCacheFit,
)

FAMILY = Family(
    name="HiDream I1",
    classes=("comfy.ldm.hidream.model.HiDreamImageTransformer2DModel",),
    stacks=(
        BlockStack(
            "double_stream_blocks",
            {IMAGE: Arg("image_tokens", 0), TEXT: Arg("text_tokens", 2)},
            (IMAGE, TEXT),
        ),
        BlockStack(
            "single_stream_blocks",
            {JOINED: Arg("image_tokens", 0)},
            (JOINED,),
            joined_order=IMAGE_FIRST,
        ),
    ),
    models="HiDream I1 full, dev, fast; E1",
    tap=Tap("t_embedder", of_network=True, output=True),
    fits=(
        TeaCacheFit(
            "hidream_i1_full",
            (-31360.5009, -712.425503, 49.1363285, 8.2651549, 0.108053901),
            0.35,
        ),
        TeaCacheFit(
            "hidream_i1_dev",
            (1.39997273, -4.30130469, 5.01534416, -2.20504164, 0.93942874),
            1.0,
            first_steps=1,
            tap=HIDDEN_STATE,
        ),
        TeaCacheFit(
            "hidream_i1_fast",
            (2.26509623, -6.88864563, 7.61123826, -3.10849353, 0.99927602),
            1.5,
            first_steps=1,
            tap=HIDDEN_STATE,
        ),
    ),
    # The three variants have the same shape; the full one is assumed.
    choose_fit=lambda network: "hidream_i1_full",
    spectrum=lambda network: spectra.FLUX_1,
)

"""Wan 2.1 and 2.2: text and time enter every block by attention and modulation, one stream.

VACE, S2V, Animate and Dancer add to the hidden state between blocks; those adds are inside the
residual like a ControlNet's.
"""

from typing import Any

from . import spectra
from .base import IMAGE, Arg, BlockStack, CacheDiTPreset, Family, Tap, TeaCacheFit
from .tokens import Along, Frames, TokenPlan

WAN_STACKS = (BlockStack("blocks", {IMAGE: Arg("x", 0)}, (IMAGE,)),)

# Blocks see only the projection of the time embedding; "ret" fits were made on that.
EMBEDDING = Tap("time_embedding", of_network=True, output=True)
PROJECTION = Tap("time_projection", of_network=True, output=True)


def _choose_fit(network: Any) -> str | None:
    """By width and by whether the model takes an image; 480p and 720p have the same shape."""
    from_image = getattr(network, "img_emb", None) is not None
    if network.dim == 1536:
        return None if from_image else "wan2.1_t2v_1.3B"
    if network.dim == 5120:
        return "wan2.1_i2v_480p_14B" if from_image else "wan2.1_t2v_14B"
    return None


FAMILY = Family(
    name="Wan",
    classes=("comfy.ldm.wan.model.WanModel",),
    stacks=WAN_STACKS,
    is_video=True,
    resident_from_gb=60.0,
    two_experts=True,
    models="Wan 2.1 T2V, I2V, FLF2V, Camera, Fun, HuMo, SCAIL; Wan 2.2 5B, 14B, S2V, Animate",
    tap=EMBEDDING,
    fits=(
        TeaCacheFit(
            "wan2.1_t2v_1.3B",
            (2396.76752, -1311.10545, 201.331979, -8.29855975, 0.137887774),
            0.08,
        ),
        TeaCacheFit(
            "wan2.1_t2v_14B",
            (-5784.54975374, 5449.50911966, -1811.16591783, 256.27178429, -13.02252404),
            0.2,
        ),
        TeaCacheFit(
            "wan2.1_i2v_480p_14B",
            (-302.33167, 223.948934, -52.546397, 5.8734844, -0.201973289),
            0.26,
        ),
        TeaCacheFit(
            "wan2.1_i2v_720p_14B",
            (-114.36346466, 65.26524496, -18.82220707, 4.91518089, -0.23412683),
            0.27,
        ),
        TeaCacheFit(
            "wan2.1_t2v_1.3B_ret_mode",
            (-52186.2437, 9230.41404, -528.275948, 13.6987616, -0.0499875664),
            0.15,
            first_steps=5,
            tap=PROJECTION,
        ),
        TeaCacheFit(
            "wan2.1_t2v_14B_ret_mode",
            (-303318.725, 49053.7029, -2655.30556, 58.7365115, -0.315583525),
            0.2,
            first_steps=5,
            tap=PROJECTION,
        ),
        TeaCacheFit(
            "wan2.1_i2v_480p_14B_ret_mode",
            (257151.496, -35422.9917, 1402.86849, -13.5890334, 0.132517977),
            0.3,
            first_steps=5,
            tap=PROJECTION,
        ),
        TeaCacheFit(
            "wan2.1_i2v_720p_14B_ret_mode",
            (8107.0546, 2133.93892, -372.934672, 16.6203073, -0.0417769401),
            0.3,
            first_steps=5,
            tap=PROJECTION,
        ),
    ),
    choose_fit=_choose_fit,
    cache_dit=(
        CacheDiTPreset(
            "Wan 2.2 14B, high noise",
            {"residual_diff_threshold": 0.12, "max_cached_steps": 8},
            "cache-dit, examples wan2.2",
        ),
        CacheDiTPreset(
            "Wan 2.2 14B, low noise",
            {"residual_diff_threshold": 0.12, "max_warmup_steps": 2, "max_cached_steps": 20},
            "cache-dit, examples wan2.2",
        ),
    ),
    spectrum=lambda network: spectra.VIDEOS if network.out_dim == 48 else spectra.WAN_2_1,
    split={
        "blocks": TokenPlan(
            (Along(Arg("freqs", 2), 1, IMAGE), Frames(Arg("e", 1))), attention="self_attn"
        )
    },
    split_classes=("comfy.ldm.wan.model.CameraWanModel",),
)

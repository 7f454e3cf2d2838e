"""CogVideoX: two streams, image returned first."""

from typing import Any

from .base import IMAGE, TEXT, Arg, BlockStack, Family, Tap, TeaCacheFit


def _choose_fit(network: Any) -> str | None:
    """1.5 patches time as well; its image-to-video model takes twice the channels."""
    if network.patch_embed.patch_size_t is not None:
        return (
            "cogvideox_1.5_5b_i2v"
            if network.patch_embed.proj.in_features > 16 * 8
            else "cogvideox_1.5_5b"
        )
    return {1920: "cogvideox_2b", 3072: "cogvideox_5b"}.get(network.patch_embed.dim)


FAMILY = Family(
    name="CogVideoX",
    classes=("comfy.ldm.cogvideo.model.CogVideoXTransformer3DModel",),
    stacks=(
        BlockStack(
            "blocks",
            {IMAGE: Arg("hidden_states", 0), TEXT: Arg("encoder_hidden_states", 1)},
            (IMAGE, TEXT),
        ),
    ),
    is_video=True,
    models="CogVideoX 2B, 5B, I2V",
    tap=Tap("time_embedding_linear_2", of_network=True, output=True),
    fits=(
        TeaCacheFit(
            "cogvideox_2b",
            (-31.0658903, 25.4732368, -5.92380459, 1.75769064, -0.00361568434),
            0.3,
        ),
        TeaCacheFit(
            "cogvideox_5b",
            (-1538.80483, 843.202495, -134.363087, 7.97131516, -0.0523162339),
            0.3,
        ),
        TeaCacheFit(
            "cogvideox_1.5_5b",
            (250.210439, -165.061612, 35.7804877, -0.781551492, 0.0358559703),
            0.2,
        ),
        TeaCacheFit(
            "cogvideox_1.5_5b_i2v",
            (122.842302, -104.088754, 26.2981677, -0.306009921, 0.037121322),
            0.2,
        ),
    ),
    choose_fit=_choose_fit,
)

"""SeedVR2: flattened video and text tokens ``[L, D]``, with their shapes handed along."""

from .base import IMAGE, TEXT, Arg, BlockStack, Family

FAMILY = Family(
    name="SeedVR2",
    classes=("comfy.ldm.seedvr.model.NaDiT",),
    stacks=(
        BlockStack(
            "blocks",
            {
                IMAGE: Arg("vid", 0),
                TEXT: Arg("txt", 1),
                "vid_shape": Arg("vid_shape", 2),
                "txt_shape": Arg("txt_shape", 3),
            },
            (IMAGE, TEXT, "vid_shape", "txt_shape"),
        ),
    ),
    is_video=True,
    models="SeedVR2",
)

"""Boogu: double-stream layers, then single-stream layers on the joined tokens."""

from .base import IMAGE, JOINED, TEXT, Arg, BlockStack, Family

FAMILY = Family(
    name="Boogu",
    classes=("comfy.ldm.boogu.model.BooguTransformer2DModel",),
    stacks=(
        BlockStack(
            "double_stream_layers",
            {IMAGE: Arg("img_hidden_states", 0), TEXT: Arg("instruct_hidden_states", 1)},
            (IMAGE, TEXT),
        ),
        BlockStack("single_stream_layers", {JOINED: Arg("hidden_states", 0)}, (JOINED,)),
    ),
    models="Boogu",
)

"""Cosmos 1: blocks in a ModuleDict; the host adds position embeddings before every block."""

from .base import IMAGE, Arg, BlockStack, Family

FAMILY = Family(
    name="Cosmos 1",
    classes=("comfy.ldm.cosmos.model.GeneralDIT",),
    stacks=(BlockStack("blocks", {IMAGE: Arg("x", 0)}, (IMAGE,)),),
    is_video=True,
    models="Cosmos 1 text2world, video2world",
)

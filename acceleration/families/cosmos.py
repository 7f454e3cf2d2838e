"""Cosmos 1: blocks in a ModuleDict; the host adds position embeddings before every block."""

from .base import IMAGE, Arg, BlockStack, Family, Tap, TeaCacheFit

FAMILY = Family(
    name="Cosmos 1",
    classes=("comfy.ldm.cosmos.model.GeneralDIT",),
    stacks=(BlockStack("blocks", {IMAGE: Arg("x", 0)}, (IMAGE,)),),
    is_video=True,
    models="Cosmos 1 text2world, video2world",
    tap=Tap("blocks.0.block"),
    fits=(
        TeaCacheFit(
            "cosmos",
            (271.156237, -91.9775607, 2.2443725, 2.08355751, 0.14177633),
            0.3,
        ),
    ),
    choose_fit=lambda network: "cosmos",
)

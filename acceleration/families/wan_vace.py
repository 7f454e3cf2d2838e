"""Wan VACE: side blocks read the control video and add to the hidden state between main blocks."""

from dataclasses import replace

from . import wan
from .base import IMAGE, Arg, SideBlocks
from .tokens import Along

MAIN = wan.FAMILY.split["blocks"]

FAMILY = replace(
    wan.FAMILY,
    name="Wan VACE",
    classes=("comfy.ldm.wan.model.VaceWanModel",),
    side=(
        SideBlocks(
            "vace_blocks",
            own=Arg("c", 0),
            last_fed=lambda network: max(network.vace_layers_mapping),
        ),
    ),
    resident_from_gb=60.0,
    models="Wan 2.1 VACE, Wan 2.2 VACE",
    split={
        "blocks": MAIN,
        "vace_blocks": replace(
            MAIN, enters=(Along(Arg("c", 0), 1, IMAGE), Along(Arg("x", 1), 1, IMAGE))
        ),
    },
    split_classes=(),
)

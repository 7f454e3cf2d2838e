"""Wan VACE: side blocks read the control video and add to the hidden state between main blocks."""

from dataclasses import replace

from . import wan
from .base import Arg, SideBlocks

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
    # Its side blocks would have to be cut with the main ones, which nothing here says.
    split={},
)

"""What Quantize Model was asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from ..setting import Checked, setting
from .formats import FORMATS

MIXED, AUTO = "mixed", "auto"


@dataclass(frozen=True)
class QuantizeSettings(Checked):
    """What one Quantize Model node was asked to do."""

    precision: str = setting(
        AUTO,
        "What the weights of the blocks become. auto: the fastest format here whose measured error "
        "is small; the model as it is where none is faster. int8: 8 bits, for most GPUs. fp8: from "
        "RTX 40 on. mxfp8 and nvfp4: RTX 50 and newer; nvfp4 is the smallest and loses most. "
        "mixed: of these the ones that lose least within memory_gb.",
        choices=(AUTO, *FORMATS, MIXED),
    )
    memory_gb: float = setting(
        0.0,
        "How many GB (10^9 bytes) the model's weights may take. With mixed the formats are chosen "
        "for it, with auto a smaller format is taken even where it is not faster. 0 sets no limit: "
        "mixed then becomes as small as its error allows.",
        lowest=0.0,
        highest=1000.0,
        step=0.1,
        limit="it must be the GB that the weights may take, or 0 for no limit",
    )
    keep: str = setting(
        "",
        "Layers that stay as they are: parts of their names with commas, * for anything, such as "
        "img_mlp, double_blocks.0.*. They are added to what the pack keeps for this model.",
        advanced=True,
    )
    exact_steps: int = setting(
        0,
        "So many first and so many last steps compute with exact activations (the weights stay "
        "small). Slower and nearer to the full model; raise it if faces or text suffer.",
        lowest=0,
        highest=100,
        limit="it must be a number of steps from 0 to 100",
        advanced=True,
    )
    fold_loras: bool = setting(
        True,
        "LoRAs before this node become part of the weights before they are quantized, which is "
        "closer than adding them on top. Off: ComfyUI adds them to the quantized weights.",
        advanced=True,
    )
    measure: str = setting(
        "quick",
        "quick: a few steps with a small picture show how much every layer and the whole model "
        "change; layers that hurt go back. off: no layer goes back and no error is reported, only "
        "the smoothing of activations is still measured.",
        choices=("quick", "off"),
        advanced=True,
    )

    @property
    def patterns(self) -> tuple[str, ...]:
        """The parts of names in ``keep``."""
        return tuple(part for text in self.keep.split(",") if (part := text.strip()))

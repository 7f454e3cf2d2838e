"""Autoregressive Wan: its blocks write keys and values that later frames read."""

from .base import Family
from .wan import WAN_STACKS

FAMILY = Family(
    name="Wan causal",
    classes=("comfy.ldm.wan.ar_model.CausalWanModel",),
    stacks=WAN_STACKS,
    is_video=True,
    refused="its blocks write keys and values that later frames read, so none may be skipped",
    models="Wan 2.1 causal (autoregressive)",
    one_size="its blocks keep what later frames read, at one size",
)

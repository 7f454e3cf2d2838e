"""What is known of each model family, as data: one small file a family."""

from __future__ import annotations

from .base import Arg, BlockStack, CacheDiTPreset, Family, SideBlocks, Structure, Tap, TeaCacheFit
from .registry import FAMILIES, describe, published_fits

__all__ = [
    "FAMILIES",
    "Arg",
    "BlockStack",
    "CacheDiTPreset",
    "Family",
    "SideBlocks",
    "Structure",
    "Tap",
    "TeaCacheFit",
    "describe",
    "published_fits",
]

"""Every family as a tiny model; see ``tiny_models`` for how they are built and sampled."""

from __future__ import annotations

from tiny_data import TinyModel
from tiny_families_flux import FLUX, FLUX_CONFIG
from tiny_families_image import IMAGE
from tiny_families_rest import REST
from tiny_families_video import VIDEO
from tiny_families_wan import WAN

__all__ = ["FLUX_CONFIG", "NOT_COVERED", "NOT_TRANSFORMERS", "POPULAR", "TINY"]

TINY: dict[str, TinyModel] = {**FLUX, **WAN, **IMAGE, **VIDEO, **REST}

POPULAR = ("flux", "flux2", "chroma", "wan")
"""Families on which everything that does not depend on the family is tested."""

NOT_TRANSFORMERS = frozenset(
    {
        # UNets of convolutions and attention.
        *("SD15", "SD20", "SD21UnclipL", "SD21UnclipH", "SDXL", "SDXLRefiner", "SSD1B"),
        *("KOALA_700M", "KOALA_1B", "Segmind_Vega", "LotusD", "Stable_Zero123"),
        *("SD15_instructpix2pix", "SDXL_instructpix2pix", "SV3D_u", "SV3D_p", "SVD_img2vid"),
        # An upscaler, also a UNet.
        "SD_X4Upscaler",
        # Stable Cascade's stages, also UNets.
        *("Stable_Cascade_B", "Stable_Cascade_C"),
        # They find objects, cut them out or estimate depth; nothing is sampled.
        *("RT_DETR_v4", "SAM3", "SAM31", "DepthAnything3"),
    }
)
"""Classes of ``comfy.supported_models`` whose network is no diffusion transformer."""

NOT_COVERED: dict[str, str] = {}
"""Diffusion transformers without a tiny model here, and why."""

"""The nodes of the pack: schema, checks and one call into the engine each."""

from __future__ import annotations

import logging

from comfy_api.latest import ComfyExtension, io

from ..acceleration import host
from ..acceleration.cache_dit.library import is_installed
from .apply_cache_dit import ApplyCacheDiT
from .apply_tea_cache import ApplyTeaCache
from .attention_backend import AttentionBackend
from .calibrate_tea_cache import CalibrateTeaCache
from .compare_quality import CompareQuality
from .load_config import LoadAccelerationConfig
from .performance_mode import PerformanceMode
from .profile import ProfileSampling
from .progressive_resolution import ProgressiveResolution
from .quantize_model import QuantizeModel
from .replacements import register as register_replacements
from .report import AccelerationReport
from .save_config import SaveAccelerationConfig
from .split_across_gpus import SplitAcrossGPUs

NODES: list[type[io.ComfyNode]] = [
    ApplyCacheDiT,
    ApplyTeaCache,
    AttentionBackend,
    CalibrateTeaCache,
    CompareQuality,
    PerformanceMode,
    ProfileSampling,
    ProgressiveResolution,
    SplitAcrossGPUs,
    QuantizeModel,
    AccelerationReport,
    LoadAccelerationConfig,
    SaveAccelerationConfig,
]


class DiTAccelerationExtension(ComfyExtension):
    """What the host loads."""

    async def on_load(self) -> None:
        if not is_installed():
            logging.getLogger("dit_acceleration").warning(
                "DiT Acceleration: the package cache-dit is not installed, so Apply Cache-DiT "
                "cannot run: run `python -m pip install cache-dit` with ComfyUI's Python."
            )
        await register_replacements()
        host.add_routes()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES

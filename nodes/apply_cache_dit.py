"""Apply Cache-DiT."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.cache_dit.library import require_installed
from ..acceleration.policies.cache_dit import CacheDiT
from ..acceleration.settings.caching import CacheDiTSettings
from ..acceleration.settings.environment import settings_for
from .shared_inputs import CATEGORY, SHOWS_ITS_RUNS, UNLINKED, node_id, refusal, setting_inputs


class ApplyCacheDiT(io.ComfyNode):
    """Skips transformer blocks where the change between steps is small."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AccelApplyCacheDiT",
            display_name="Apply Cache-DiT",
            category=CATEGORY,
            description=(
                "Samples a diffusion transformer faster: where the first blocks show that little "
                "changed since the last computed step, the other blocks are skipped and their "
                "effect is reused or forecast. Quality trade-off: the picture changes slightly."
            ),
            search_aliases=["cache", "dbcache", "taylorseer", "speed up", "first block cache"],
            inputs=[
                io.Model.Input("model", tooltip="A diffusion transformer such as FLUX or Wan."),
                *setting_inputs(CacheDiTSettings),
            ],
            outputs=[io.Model.Output(tooltip="The same model, sampling with Cache-DiT.")],
            hidden=[io.Hidden.unique_id],
            not_idempotent=SHOWS_ITS_RUNS,
        )

    @classmethod
    def validate_inputs(
        cls,
        scm_compute_bins: Any = "",
        scm_cache_bins: Any = "",
        start_percent: Any = 0.0,
        end_percent: Any = 1.0,
        config: Any = UNLINKED,
    ) -> bool | str:
        """Refuse before anything runs what the host cannot check; their sum needs the sampler."""
        settings = {
            "scm_compute_bins": scm_compute_bins,
            "scm_cache_bins": scm_cache_bins,
            "start_percent": start_percent,
            "end_percent": end_percent,
        }
        return refusal(
            "cache_config", config, settings, lambda _: require_installed("Apply Cache-DiT")
        )

    @classmethod
    def execute(cls, model: Any, config: Any = None, **settings: Any) -> io.NodeOutput:
        found = settings_for("cache_config", settings, config)
        second = CacheDiT(found.second.settings) if found.second else None
        technique = CacheDiT(found.settings)
        return io.NodeOutput(host.attach(model, technique, node_id(cls), found, second))

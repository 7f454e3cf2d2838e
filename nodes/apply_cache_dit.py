"""Apply Cache-DiT."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.policies.cache_dit import CacheDiT
from ..acceleration.settings.caching import CacheDiTSettings
from ..acceleration.settings.environment import settings_for
from .shared_inputs import node_id, setting_inputs

CATEGORY = "model/acceleration"


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
        )

    @classmethod
    def execute(cls, model: Any, config: Any = None, **settings: Any) -> io.NodeOutput:
        found = settings_for("cache_config", settings, config)
        second = CacheDiT(found.second.settings) if found.second else None
        technique = CacheDiT(found.settings)
        return io.NodeOutput(host.attach(model, technique, node_id(cls), found, second))

"""Apply TeaCache."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.policies.tea_cache import TeaCache
from ..acceleration.settings.caching import TeaCacheSettings
from ..acceleration.settings.environment import settings_for
from .shared_inputs import node_id, setting_inputs


class ApplyTeaCache(io.ComfyNode):
    """Skips all transformer blocks while the estimated change of the output is small."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AccelApplyTeaCache",
            display_name="Apply TeaCache",
            category="model/acceleration",
            description=(
                "Samples a diffusion transformer faster: estimates from the change of its input "
                "how much the output would change, and skips all blocks while that is little. "
                "Quality trade-off: the picture changes slightly."
            ),
            search_aliases=["teacache", "tea cache", "speed up", "cache"],
            inputs=[
                io.Model.Input("model", tooltip="A diffusion transformer such as FLUX or Wan."),
                *setting_inputs(TeaCacheSettings),
            ],
            outputs=[io.Model.Output(tooltip="The same model, sampling with TeaCache.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Any, config: Any = None, **settings: Any) -> io.NodeOutput:
        found = settings_for("teacache_config", settings, config)
        technique = TeaCache(found.settings, host.calibrated_fit)
        return io.NodeOutput(host.attach(model, technique, node_id(cls), found))

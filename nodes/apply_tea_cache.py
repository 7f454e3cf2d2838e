"""Apply TeaCache."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.policies.tea_cache import TeaCache
from ..acceleration.settings.caching import TeaCacheSettings
from ..acceleration.settings.environment import settings_for
from .shared_inputs import CATEGORY, SHOWS_ITS_RUNS, UNLINKED, node_id, refusal, setting_inputs


class ApplyTeaCache(io.ComfyNode):
    """Skips all transformer blocks while the estimated change of the output is small."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AccelApplyTeaCache",
            display_name="Apply TeaCache",
            category=CATEGORY,
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
            not_idempotent=SHOWS_ITS_RUNS,
        )

    @classmethod
    def validate_inputs(
        cls,
        coefficients: Any = "auto",
        custom_coefficients: Any = "",
        start_percent: Any = 0.0,
        end_percent: Any = 1.0,
        config: Any = UNLINKED,
    ) -> bool | str:
        """Refuse before anything runs what the host cannot check."""
        settings = {
            "coefficients": coefficients,
            "custom_coefficients": custom_coefficients,
            "start_percent": start_percent,
            "end_percent": end_percent,
        }
        return refusal("teacache_config", config, settings)

    @classmethod
    def execute(cls, model: Any, config: Any = None, **settings: Any) -> io.NodeOutput:
        found = settings_for("teacache_config", settings, config)
        technique = TeaCache(found.settings, host.calibrated_fit)
        return io.NodeOutput(host.attach(model, technique, node_id(cls), found))

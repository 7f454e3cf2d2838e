"""Performance Mode."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.performance import PerformanceSettings
from ..acceleration.settings.environment import settings_for
from .shared_inputs import CATEGORY, SHOWS_ITS_RUNS, node_id, setting_inputs


class PerformanceMode(io.ComfyNode):
    """Sets the other levers for a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AccelPerformanceMode",
            # The page's search finds by search_aliases, but ranks by id and name only: these four
            # words would come behind Seed, Preview Image and Timesteps Range. On the node the
            # brackets are left out.
            display_name="Performance Mode (speed, fast, slow, time)",
            category=CATEGORY,
            description=(
                "Samples a diffusion transformer faster with one choice, and says what it did. "
                "Its mode touches only what leaves the picture as it is; its approximation skips "
                "evaluations and trades a little of the picture for speed."
            ),
            search_aliases=[
                *("speed up", "faster", "slow", "too slow", "time", "vram", "memory", "optimize"),
                *("accelerate", "turbo", "cache", "preset", "加速", "高速化"),
            ],
            inputs=[
                io.Model.Input("model", tooltip="A diffusion transformer such as FLUX or Wan."),
                *setting_inputs(PerformanceSettings),
            ],
            outputs=[io.Model.Output(tooltip="The same model, sampling in this mode.")],
            hidden=[io.Hidden.unique_id],
            not_idempotent=SHOWS_ITS_RUNS,
        )

    @classmethod
    def execute(cls, model: Any, config: Any = None, **settings: Any) -> io.NodeOutput:
        found = settings_for("performance_config", settings, config)
        return io.NodeOutput(host.attach_performance(model, found.settings, node_id(cls), found))

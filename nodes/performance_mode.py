"""Performance Mode."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.performance import APPROXIMATIONS, MODES, PerformanceSettings
from ..acceleration.performance.settings import MOST
from ..acceleration.settings.environment import settings_for
from .shared_inputs import config_input, node_id


class PerformanceMode(io.ComfyNode):
    """Sets the other levers for a model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        default = PerformanceSettings()
        return io.Schema(
            node_id="AccelPerformanceMode",
            display_name="Performance Mode",
            category="model/acceleration",
            description=(
                "Samples a diffusion transformer faster with one choice, and says what it did. "
                "`mode` touches only what leaves the picture as it is; `approximation` skips "
                "evaluations and trades a little of the picture for speed."
            ),
            search_aliases=["speed", "fast", "accelerate", "turbo", "cache", "preset"],
            inputs=[
                io.Model.Input("model", tooltip="A diffusion transformer such as FLUX or Wan."),
                io.Combo.Input(
                    "mode",
                    optional=True,
                    options=list(MODES),
                    default=default.mode,
                    tooltip="Weights and kernels; the picture stays. auto: decides by the free "
                    "memory. speed: all weights on the GPU, the fastest exact attention kernel. "
                    "memory: weights are streamed, slower and small. manual: touches nothing. "
                    "Leave auto unless you know better.",
                ),
                io.Combo.Input(
                    "approximation",
                    optional=True,
                    options=list(APPROXIMATIONS),
                    default=default.approximation,
                    tooltip="How much of the picture may be given for speed. off: nothing. "
                    "quality: about 1.5 times as fast, hardly to be seen. balanced: 2 times. fast: "
                    "2.5 times. ultra: 3 times, for drafts. target: what target_speedup says. "
                    "Models of fewer than 8 steps are left alone.",
                ),
                io.Float.Input(
                    "target_speedup",
                    optional=True,
                    default=default.target_speedup,
                    min=1.0,
                    max=MOST,
                    step=0.1,
                    tooltip="With approximation target: how many times faster sampling shall be. "
                    "Higher is faster and less faithful; 1 skips nothing. No threshold to guess: "
                    "the number of computed evaluations follows from it.",
                ),
                config_input(),
            ],
            outputs=[io.Model.Output(tooltip="The same model, sampling in this mode.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Any, config: Any = None, **settings: Any) -> io.NodeOutput:
        found = settings_for("performance_config", settings, config)
        return io.NodeOutput(host.attach_performance(model, found.settings, node_id(cls), found))

"""Split Across GPUs."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.settings.environment import settings_for
from ..acceleration.settings.parallel import ParallelSettings
from .shared_inputs import CATEGORY, SHOWS_ITS_RUNS, node_id, setting_inputs


class SplitAcrossGPUs(io.ComfyNode):
    """One model, evaluated by several GPUs together."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AccelSplitAcrossGPUs",
            display_name="Split Across GPUs",
            category=CATEGORY,
            description=(
                "Lets several GPUs evaluate one model together: they share pictures and prompts, "
                "and where there is only one, its tokens. The sampler, ControlNet and previews "
                "stay in ComfyUI. Pictures stay the same up to rounding. Put it behind the "
                "loader and LoRAs; composes with caching and Attention Backend. Linux, needs the "
                "package ray."
            ),
            search_aliases=["multi gpu", "parallel", "ray", "ulysses", "sequence", "cfg", "speed"],
            is_experimental=True,
            inputs=[
                io.Model.Input("model", tooltip="A model from one of ComfyUI's own loaders."),
                *setting_inputs(ParallelSettings),
            ],
            outputs=[
                io.Model.Output(tooltip="The same model, evaluated by all GPUs; holds no weights.")
            ],
            hidden=[io.Hidden.unique_id],
            not_idempotent=SHOWS_ITS_RUNS,
        )

    @classmethod
    def execute(cls, model: Any, config: Any = None, **settings: Any) -> io.NodeOutput:
        found = settings_for("parallelism_config", settings, config)
        return io.NodeOutput(host.attach_split(model, found.settings, node_id(cls), found))

"""Progressive Resolution."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.progressive import ProgressiveSettings
from ..acceleration.settings.environment import settings_for
from .shared_inputs import CATEGORY, SHOWS_ITS_RUNS, node_id, setting_inputs


class ProgressiveResolution(io.ComfyNode):
    """Early evaluations of one model at a smaller size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AccelProgressiveResolution",
            display_name="Progressive Resolution",
            category=CATEGORY,
            description=(
                "Lets the model work on a smaller picture while there is so much noise that its "
                "fine detail cannot be seen yet. The sampler, masks and previews keep the full "
                "size. Pays most for large pictures and videos; composes with caching. A quality "
                "trade-off."
            ),
            search_aliases=["progressive", "resolution", "coarse to fine", "spectral", "speed"],
            inputs=[
                io.Model.Input("model", tooltip="A model that samples pictures or videos."),
                *setting_inputs(ProgressiveSettings),
                io.Latent.Input(
                    "pictures",
                    optional=True,
                    tooltip="A dozen pictures or more from VAE Encode: the spectrum of this kind "
                    "of latents is fitted to them and kept, so one run with them is enough. Counts "
                    "with spectrum auto.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The same model, beginning with small pictures.")],
            hidden=[io.Hidden.unique_id],
            not_idempotent=SHOWS_ITS_RUNS,
        )

    @classmethod
    def execute(
        cls, model: Any, config: Any = None, pictures: Any = None, **settings: Any
    ) -> io.NodeOutput:
        found = settings_for("progressive_config", settings, config)
        return io.NodeOutput(
            host.attach_progressive(model, found.settings, node_id(cls), found, pictures)
        )

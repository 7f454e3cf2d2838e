"""Quantize Model."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.quantize import QuantizeSettings
from ..acceleration.settings.environment import settings_for
from .shared_inputs import CATEGORY, node_id, setting_inputs


class QuantizeModel(io.ComfyNode):
    """Smaller and faster weights for one model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AccelQuantize",
            display_name="Quantize Model",
            category=CATEGORY,
            description=(
                "Makes the weights of a loaded model smaller, and where the device can its "
                "arithmetic faster, and measures what that changes. Layers that hurt stay as they "
                "are. Helps few-step models, where there is nothing to skip. A quality trade-off."
            ),
            search_aliases=["quantize", "int8", "fp8", "nvfp4", "mxfp8", "smaller", "memory"],
            inputs=[
                io.Model.Input(
                    "model", tooltip="A model in 16 or 32 bits, with the LoRAs that are to stay."
                ),
                *setting_inputs(QuantizeSettings),
                io.Conditioning.Input(
                    "positive",
                    optional=True,
                    tooltip="A prompt to measure with. Without it noise takes its place, which "
                    "shows less of what the model meets.",
                ),
                io.Latent.Input(
                    "latent_image",
                    optional=True,
                    tooltip="An empty latent to measure with. Without it a small one is made; a "
                    "larger one takes longer.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The model with quantized weights.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(
        cls,
        model: Any,
        config: Any = None,
        positive: Any = None,
        latent_image: Any = None,
        **settings: Any,
    ) -> io.NodeOutput:
        found = settings_for("quantize_config", settings, config)
        latent = None if latent_image is None else latent_image["samples"]
        return io.NodeOutput(
            host.attach_quantize(
                model, found.settings, node_id(cls), found, positive=positive, latent=latent
            )
        )

"""Attention Backend."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.attention import CHOICES, AttentionSettings, describe_choices
from ..acceleration.errors import AccelerationError
from ..acceleration.settings.environment import settings_for
from .shared_inputs import node_id, setting_inputs


class AttentionBackend(io.ComfyNode):
    """Chooses the attention kernel of one model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AccelAttentionBackend",
            display_name="Attention Backend",
            category="model/acceleration",
            description=(
                "Chooses the attention kernel for this model only, falls back where a kernel "
                "cannot take a call, and reports what really ran. auto and everything but the sage "
                "kernels is output-preserving; sage kernels are a quality trade-off."
            ),
            search_aliases=[
                *("flash attention", "sage attention", "sageattn", "xformers", "sdpa", "cudnn"),
                "attention kernel",
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model whose attention is meant."),
                *setting_inputs(AttentionSettings, backend=describe_choices()),
            ],
            outputs=[io.Model.Output(tooltip="The same model with this attention.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def validate_inputs(cls, backend: Any = None) -> bool | str:
        """Take what older versions had in the list, too; a linked value is checked later."""
        try:
            AttentionSettings(backend=backend or CHOICES[0])
        except AccelerationError as error:
            return str(error)
        return True

    @classmethod
    def execute(cls, model: Any, config: Any = None, **settings: Any) -> io.NodeOutput:
        found = settings_for("attention_config", settings, config)
        return io.NodeOutput(host.attach_attention(model, found.settings, node_id(cls), found))

"""Attention Backend."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.attention import CHOICES, AttentionSettings, describe_choices
from ..acceleration.settings.environment import settings_for
from .shared_inputs import CATEGORY, SHOWS_ITS_RUNS, UNLINKED, node_id, refusal, setting_inputs


class AttentionBackend(io.ComfyNode):
    """Chooses the attention kernel of one model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AccelAttentionBackend",
            # As in Performance Mode: "sage" is in every Image and Message.
            display_name="Attention Backend (sage)",
            category=CATEGORY,
            description=(
                "Chooses the attention kernel for this model only, falls back where a kernel "
                "cannot take a call, and reports what really ran. auto and everything but the sage "
                "kernels is output-preserving; sage kernels are a quality trade-off."
            ),
            search_aliases=[
                *("flash attention", "sage attention", "sageattn", "xformers", "sdpa", "cudnn"),
                *("attention kernel", "fp8"),
            ],
            inputs=[
                io.Model.Input("model", tooltip="The model whose attention is meant."),
                *setting_inputs(AttentionSettings, backend=describe_choices(host.device_here())),
            ],
            outputs=[io.Model.Output(tooltip="The same model with this attention.")],
            hidden=[io.Hidden.unique_id],
            not_idempotent=SHOWS_ITS_RUNS,
        )

    @classmethod
    def validate_inputs(
        cls,
        backend: Any = CHOICES[0],
        start_percent: Any = 0.0,
        end_percent: Any = 1.0,
        first_block: Any = 0,
        last_block: Any = -1,
        config: Any = UNLINKED,
    ) -> bool | str:
        """Refuse before anything runs what cannot work here, and take former names of backends."""
        settings = {
            "backend": backend,
            "start_percent": start_percent,
            "end_percent": end_percent,
            "first_block": first_block,
            "last_block": last_block,
        }
        return refusal("attention_config", config, settings, AttentionSettings.require_installed)

    @classmethod
    def execute(cls, model: Any, config: Any = None, **settings: Any) -> io.NodeOutput:
        found = settings_for("attention_config", settings, config)
        return io.NodeOutput(host.attach_attention(model, found.settings, node_id(cls), found))

"""Attention Backend."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.attention import CHOICES, AttentionSettings, describe_choices
from ..acceleration.attention.settings import KINDS, ON_UNSUPPORTED
from ..acceleration.errors import AccelerationError
from ..acceleration.settings.environment import settings_for
from .shared_inputs import config_input, node_id


class AttentionBackend(io.ComfyNode):
    """Chooses the attention kernel of one model."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        default = AttentionSettings()
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
                io.Combo.Input(
                    "backend",
                    optional=True,
                    options=list(CHOICES),
                    default=default.backend,
                    tooltip="Which kernel computes attention. auto is right unless you want to "
                    f"compare, or sage's speed for some fidelity.\n{describe_choices()}",
                ),
                io.Combo.Input(
                    "on_unsupported",
                    optional=True,
                    options=list(ON_UNSUPPORTED),
                    default=default.on_unsupported,
                    tooltip="What happens to a call that the kernel cannot take, because of its "
                    "mask, head size or dtype. fallback: another kernel takes it, and the report "
                    "says why. error: the run stops with the reason. Leave fallback unless you "
                    "measure.",
                ),
                *_window_inputs(default),
                *_block_inputs(default),
                io.Boolean.Input(
                    "allow_low_precision",
                    optional=True,
                    default=default.allow_low_precision,
                    advanced=True,
                    tooltip="Lets auto choose among the quantizing sage kernels as well. Faster on "
                    "many GPUs, and the picture changes slightly. Leave it off for exact output.",
                ),
                config_input(),
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


def _window_inputs(default: AttentionSettings) -> list[Any]:
    return [
        io.Float.Input(
            "start_percent",
            optional=True,
            default=default.start_percent,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="The kernel acts from this part of the noise range on; before it the model "
            "runs as without this node. Raise it to keep the composition exact under sage3.",
        ),
        io.Float.Input(
            "end_percent",
            optional=True,
            default=default.end_percent,
            min=0.0,
            max=1.0,
            step=0.01,
            tooltip="The kernel acts up to this part of the noise range. Lower it to keep fine "
            "detail exact under sage3.",
        ),
    ]


def _block_inputs(default: AttentionSettings) -> list[Any]:
    return [
        io.Int.Input(
            "first_block",
            optional=True,
            default=default.first_block,
            min=0,
            max=1000,
            advanced=True,
            tooltip="The first block in which the kernel acts, counted from 0 within each list of "
            "blocks. Raise it to keep early blocks exact; leave 0 for exact kernels.",
        ),
        io.Int.Input(
            "last_block",
            optional=True,
            default=default.last_block,
            min=-1,
            max=1000,
            advanced=True,
            tooltip="The last block in which the kernel acts; -1 is the last there is. Lower it to "
            "keep late blocks exact; leave -1 for exact kernels.",
        ),
        io.Combo.Input(
            "attention_kind",
            optional=True,
            options=list(KINDS),
            default=default.attention_kind,
            advanced=True,
            tooltip="self: only where as many keys as queries come, the image among itself. cross: "
            "only where their numbers differ, as with the prompt. Self attention is where the time "
            "goes; leave all unless a quantizing kernel hurts prompt following.",
        ),
    ]

"""Inputs that every caching node has."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration.settings.caching import RESIDUAL_DEVICES, CacheDiTSettings, TeaCacheSettings

AccelConfig = io.Custom("ACCEL_CONFIG")
"""A settings file, read and checked: ``acceleration.settings.sections.Configuration``."""


def config_input() -> Any:
    """Settings of a file; the last input of every node that has some."""
    return AccelConfig.Input(
        "config",
        optional=True,
        tooltip="Settings of a file, from Load Acceleration Config. A value of this node that is "
        "not its default wins over the file, the file over the server's environment.",
    )


def corrector_input(default: CacheDiTSettings | TeaCacheSettings) -> Any:
    """Whether errors are given back; after the other widgets, whose places saved graphs know."""
    return io.Boolean.Input(
        "corrector",
        optional=True,
        default=default.corrector,
        tooltip="Gives back, in the next computed step, what skipped steps got wrong: nearer to "
        "the full picture at the same speed, for the memory of a few latents. Gains most with "
        "calibrator none or taylorseer; with blend, compare. Leave off for published figures. "
        "Samplers it does not know run as without it; the report says so.",
    )


def node_id(node: type[io.ComfyNode]) -> str | None:
    """Id in the graph of the node that is executed; its schema must list the hidden input."""
    return getattr(node.hidden, "unique_id", None)


def window_inputs(default: CacheDiTSettings | TeaCacheSettings) -> list[Any]:
    """Where in the noise range skipping happens, and where tensors live."""
    return [
        io.Float.Input(
            "start_percent",
            optional=True,
            default=default.start_percent,
            min=0.0,
            max=1.0,
            step=0.01,
            advanced=True,
            tooltip="Skipping begins at this part of the noise range. Raise it to keep the "
            "composition exact.",
        ),
        io.Float.Input(
            "end_percent",
            optional=True,
            default=default.end_percent,
            min=0.0,
            max=1.0,
            step=0.01,
            advanced=True,
            tooltip="Skipping ends at this part of the noise range. Lower it to keep fine detail "
            "exact.",
        ),
        io.Combo.Input(
            "residual_device",
            optional=True,
            options=list(RESIDUAL_DEVICES),
            default=default.residual_device,
            advanced=True,
            tooltip="Where remembered tensors live. auto: on the GPU while there is room, else in "
            "CPU memory, else compact. cpu saves VRAM and costs a little time; bf16 and fp8 take "
            "half or a quarter of float32 and cost some faithfulness. Leave at auto.",
        ),
    ]

"""Load Acceleration Config."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.errors import AccelerationError
from .shared_inputs import CATEGORY, AccelConfig


class LoadAccelerationConfig(io.ComfyNode):
    """Reads a settings file for the other nodes of the pack."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AccelLoadConfig",
            display_name="Load Acceleration Config",
            category=CATEGORY,
            description=(
                "Reads a YAML or JSON file of settings, with cache-dit's names as SGLang-Diffusion "
                "uses them. Connect it to the config input of an acceleration node."
            ),
            search_aliases=["yaml", "json", "settings file", "preset", "cache_config"],
            inputs=[
                io.Combo.Input(
                    "file",
                    options=host.choices(),
                    tooltip="A file of ComfyUI's input folder, or of dit_acceleration/settings in "
                    "its user folder. Press R after adding one. It changes nothing until it is "
                    "connected; what a node sets itself wins over the file.",
                ),
            ],
            outputs=[
                AccelConfig.Output(
                    display_name="config", tooltip="For the config input of acceleration nodes."
                )
            ],
        )

    @classmethod
    def validate_inputs(cls, file: Any = None) -> bool | str:
        """Refuse a bad file before anything runs; a name made by another node is checked later."""
        if file is None:
            return True
        try:
            host.load_configuration(file)
        except AccelerationError as error:
            return str(error)
        return True

    @classmethod
    def fingerprint_inputs(cls, file: Any = None) -> str:
        """Read again when the content has changed."""
        return host.fingerprint(file)

    @classmethod
    def execute(cls, file: str) -> io.NodeOutput:
        return io.NodeOutput(host.load_configuration(file))

"""Save Acceleration Config."""

from __future__ import annotations

import logging
from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.errors import AccelerationError
from .shared_inputs import CATEGORY

log = logging.getLogger("dit_acceleration")


class SaveAccelerationConfig(io.ComfyNode):
    """Writes the settings of the acceleration nodes before it into a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AccelSaveConfig",
            display_name="Save Acceleration Config",
            category=CATEGORY,
            description=(
                "Writes the settings of every acceleration node on this model into a file in "
                "ComfyUI's user folder, for Load Acceleration Config, another workflow or a server."
            ),
            search_aliases=["yaml", "json", "settings file", "preset"],
            inputs=[
                io.Model.Input("model", tooltip="A model after the acceleration nodes."),
                io.String.Input(
                    "file_name",
                    optional=True,
                    default="acceleration.yaml",
                    tooltip="Name of the file, without a folder. It ends in .yaml or .json.",
                ),
                io.Boolean.Input(
                    "overwrite",
                    optional=True,
                    default=False,
                    tooltip="Whether a file of this name with other settings may be replaced. "
                    "Off gives the new file a number.",
                ),
            ],
            outputs=[
                io.String.Output(
                    display_name="file", tooltip="The file as Load Acceleration Config lists it."
                )
            ],
            is_output_node=True,
        )

    @classmethod
    def validate_inputs(cls, file_name: Any = None) -> bool | str:
        """Refuse a bad name before anything runs; one that another node makes is checked later."""
        if file_name is None:
            return True
        try:
            host.full_name(file_name)
        except AccelerationError as error:
            return str(error)
        return True

    @classmethod
    def execute(
        cls, model: Any, file_name: str = "acceleration.yaml", overwrite: bool = False
    ) -> io.NodeOutput:
        try:
            file = host.save_configuration(host.settings_of(model), file_name, overwrite)
        except AccelerationError as error:
            # The host would end the whole prompt, and the pictures are worth more than the file.
            log.warning("Nothing was saved: %s", error)
            return io.NodeOutput("", ui={"text": [f"Nothing was saved: {error}"]})
        text = f"Saved as {file}."
        if file != f"user/{host.full_name(file_name)}":
            text += f" {file_name} holds other settings and stays: overwrite would replace it."
        return io.NodeOutput(file, ui={"text": [text], "lines": [host.configuration_text(file)]})

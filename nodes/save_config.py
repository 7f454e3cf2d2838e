"""Save Acceleration Config."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host


class SaveAccelerationConfig(io.ComfyNode):
    """Writes the settings of the acceleration nodes before it into a file."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AccelSaveConfig",
            display_name="Save Acceleration Config",
            category="model/acceleration",
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
                    "Leave off unless you mean it.",
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
    def execute(
        cls, model: Any, file_name: str = "acceleration.yaml", overwrite: bool = False
    ) -> io.NodeOutput:
        file = host.save_configuration(host.settings_of(model), file_name, overwrite)
        return io.NodeOutput(file, ui={"text": [f"Saved as {file}."]})

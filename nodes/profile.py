"""Profile Sampling."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.profiling.profiler import MODES, ProfileSettings
from .shared_inputs import CATEGORY


class ProfileSampling(io.ComfyNode):
    """Records where the time of a sampling run goes."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        default = ProfileSettings()
        return io.Schema(
            node_id="AccelProfile",
            display_name="Profile Sampling",
            category=CATEGORY,
            description=(
                "Records some evaluations of the next sampling runs with PyTorch's profiler, "
                "writes a trace for Perfetto into the output folder, and tells where the time "
                "went. Connect Acceleration Report to read it. Changes no picture; takes time "
                "itself, so remove or bypass it when you are done."
            ),
            search_aliases=["profile", "profiler", "time", "perfetto", "nsys", "nvtx", "trace"],
            inputs=[
                io.Model.Input("model", tooltip="The model that goes into the sampler."),
                io.Int.Input(
                    "evaluations",
                    optional=True,
                    default=default.evaluations,
                    min=-1,
                    max=10000,
                    tooltip="How many model evaluations are recorded after the first one, which "
                    "only warms up. More show rare events and make a larger file; -1 is all, 0 is "
                    "off. 5 is enough for most questions.",
                ),
                io.Combo.Input(
                    "mode",
                    optional=True,
                    options=list(MODES),
                    default=default.mode,
                    tooltip="trace: PyTorch's profiler, a file for Perfetto and times by part. "
                    "nvtx: only named ranges, for ComfyUI started under `nsys profile`; the two "
                    "cannot record at once. Leave it at trace unless you use nsys.",
                ),
                io.String.Input(
                    "filename_prefix",
                    optional=True,
                    default="profile/sampling",
                    tooltip="Name of the files in the output folder; a number is added, so nothing "
                    "is overwritten.",
                ),
                io.Boolean.Input(
                    "record_shapes",
                    optional=True,
                    default=default.record_shapes,
                    advanced=True,
                    tooltip="Also record the shapes of tensors. Slower and larger; leave it off "
                    "unless you look for a certain size.",
                ),
                io.Boolean.Input(
                    "with_stack",
                    optional=True,
                    default=default.with_stack,
                    advanced=True,
                    tooltip="Also record Python's call stack. Much slower and larger; leave it off "
                    "unless you look for the code behind an operation.",
                ),
            ],
            outputs=[io.Model.Output(tooltip="The same model, profiled when it is sampled.")],
        )

    @classmethod
    def execute(
        cls, model: Any, filename_prefix: str = "profile/sampling", **settings: Any
    ) -> io.NodeOutput:
        return io.NodeOutput(host.profile(model, ProfileSettings(**settings), filename_prefix))

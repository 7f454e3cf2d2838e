"""Calibrate TeaCache."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.errors import AccelerationError
from ..acceleration.plots import as_image_batch, calibration_plot
from ..acceleration.policies.calibration import Calibration, calibrate
from ..acceleration.policies.recording import Recorder, Recording
from .shared_inputs import CATEGORY
from .shown import temporary

STANDS = (
    "This calibration stands already, so nothing was sampled. Change the seed to measure anew, for "
    "example with another prompt."
)


class CalibrateTeaCache(io.ComfyNode):
    """Measures how one checkpoint changes from step to step and stores TeaCache's coefficients."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        samplers, schedulers = host.sampler_choices()
        return io.Schema(
            node_id="AccelCalibrateTeaCache",
            display_name="Calibrate TeaCache",
            category=CATEGORY,
            description=(
                "Samples once with everything computed, fits TeaCache's coefficients to this "
                "checkpoint and stores them; Apply TeaCache then finds them by itself. Also tells "
                "which Cache-DiT threshold skips how much. Needed once per checkpoint: with the "
                "same settings it does not sample again."
            ),
            search_aliases=["teacache coefficients"],
            inputs=[
                io.Model.Input("model", tooltip="The model without an acceleration node."),
                io.Conditioning.Input("positive", tooltip="A prompt typical of your work."),
                io.Conditioning.Input("negative", tooltip="As in your workflow."),
                io.Latent.Input("latent_image", tooltip="Size and length as in your workflow."),
                io.Int.Input(
                    "seed",
                    default=0,
                    min=0,
                    max=2**64 - 1,
                    control_after_generate=io.ControlAfterGenerate.fixed,
                    tooltip="Any. Another one measures anew, as after a change of the prompt; the "
                    "last calibration of a checkpoint counts.",
                ),
                io.Int.Input(
                    "steps",
                    default=28,
                    min=8,
                    max=200,
                    tooltip="As in your workflow; more steps give more points to fit.",
                ),
                io.Float.Input(
                    "cfg", default=1.0, min=0.0, max=100.0, step=0.1, tooltip="As in your workflow."
                ),
                io.Combo.Input(
                    "sampler_name",
                    options=samplers,
                    default="euler",
                    tooltip="As in your workflow. Samplers that add noise give a poor fit.",
                ),
                io.Combo.Input(
                    "scheduler",
                    options=schedulers,
                    default="simple",
                    tooltip="As in your workflow.",
                ),
            ],
            outputs=[
                io.Model.Output(tooltip="The same model, handed through."),
                io.String.Output(display_name="text", tooltip="What was measured."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(cls, model: Any, **sampling: Any) -> io.NodeOutput:
        structure = host.structure_of(model)
        if structure is None or structure.family.refused:
            raise AccelerationError(
                "This MODEL is not a diffusion transformer that TeaCache can skip, so there is "
                "nothing to calibrate."
            )
        identity = host.checkpoint_identity(host.network_of(model))
        settings = _settings(sampling)
        standing = host.stored_calibration(identity)
        if standing is not None and standing.settings == settings:
            return _result(cls, model, standing, STANDS)
        recording = Recording()
        sampling["latent"] = sampling.pop("latent_image")
        host.sample(host.attach(model, Recorder(recording)), **sampling)
        calibration = calibrate(
            identity, structure.family.name, recording.inputs, recording.outputs, settings
        ).with_cache_dit_diffs(recording.first_blocks)
        path = host.save_calibration(calibration)
        return _result(cls, model, calibration, f"Stored as {path.name}.")


def _settings(sampling: dict[str, Any]) -> dict[str, Any]:
    """What a calibration was measured with, as JSON has it; the prompt is left to the seed."""
    numbers = {k: v for k, v in sampling.items() if isinstance(v, int | float | str)}
    return {**numbers, "latent": list(sampling["latent_image"]["samples"].shape)}


def _result(
    cls: type[io.ComfyNode], model: Any, calibration: Calibration, what: str
) -> io.NodeOutput:
    text = f"{calibration.text()}\n{what}"
    plot = as_image_batch(calibration_plot(calibration.as_dict()))
    return io.NodeOutput(model, text, ui={"text": [text], "drawings": temporary(plot, cls)})

"""Calibrate TeaCache."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.errors import AccelerationError
from ..acceleration.policies.cache_dit import CacheDiT
from ..acceleration.policies.calibration import calibrate
from ..acceleration.policies.recording import Recorder, Recording
from ..acceleration.settings.caching import CacheDiTSettings

# So low that no step is ever skipped, yet the change of every step is measured.
NEVER = 1e-9


class CalibrateTeaCache(io.ComfyNode):
    """Measures how one checkpoint changes from step to step and stores TeaCache's coefficients."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        samplers, schedulers = host.sampler_choices()
        return io.Schema(
            node_id="AccelCalibrateTeaCache",
            display_name="Calibrate TeaCache",
            category="model/acceleration",
            description=(
                "Samples twice with everything computed, fits TeaCache's coefficients to this "
                "checkpoint and stores them; Apply TeaCache then finds them by itself. Also tells "
                "which Cache-DiT threshold skips how much. Needed once per checkpoint."
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
                    tooltip="Any; more runs with other "
                    "seeds and prompts do not hurt, the last one counts.",
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
        recording = Recording()
        sampling["latent"] = sampling.pop("latent_image")
        host.sample(host.attach(model, Recorder(recording)), **sampling)
        calibration = calibrate(
            host.checkpoint_identity(host.network_of(model)),
            structure.family.name,
            recording.inputs,
            recording.outputs,
            settings={k: v for k, v in sampling.items() if isinstance(v, int | float | str)},
        )
        # After the fit: what is refused is refused before a second run.
        calibration = calibration.with_cache_dit_diffs(_cache_dit_diffs(model, sampling))
        path = host.save_calibration(calibration)
        text = f"{calibration.text()}\nStored as {path.name}."
        return io.NodeOutput(model, text, ui={"text": [text]})


def _cache_dit_diffs(model: Any, sampling: dict[str, Any]) -> list[float]:
    """Changes of the first block's residual from step to step."""
    technique = CacheDiT(CacheDiTSettings(residual_diff_threshold=NEVER))
    technique.changes_pictures = False  # nothing changes so little that it would be skipped
    watched = host.attach(model, technique)
    host.sample(watched, **sampling)
    report = host.last_report(watched)
    return [e.diff for e in report.evaluations if e.diff is not None] if report else []

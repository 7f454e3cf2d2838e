"""Progressive Resolution."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.progressive import MODES, SPECTRA, ProgressiveSettings
from ..acceleration.progressive.settings import MOST_LEVELS
from ..acceleration.settings.environment import settings_for
from .shared_inputs import config_input, node_id


class ProgressiveResolution(io.ComfyNode):
    """Early evaluations of one model at a smaller size."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        default = ProgressiveSettings()
        return io.Schema(
            node_id="AccelProgressiveResolution",
            display_name="Progressive Resolution",
            category="model/acceleration",
            description=(
                "Lets the model work on a smaller picture while there is so much noise that its "
                "fine detail cannot be seen yet. The sampler, masks and previews keep the full "
                "size. Pays most for large pictures and videos; composes with caching. A quality "
                "trade-off."
            ),
            search_aliases=["progressive", "resolution", "coarse to fine", "spectral", "speed"],
            inputs=[
                io.Model.Input("model", tooltip="A model that samples pictures or videos."),
                io.Combo.Input(
                    "mode",
                    optional=True,
                    options=list(MODES),
                    default=default.mode,
                    tooltip="How long the picture stays small. auto: fine for pictures, balanced "
                    "for videos. off: never. fine: only in the strongest noise, for "
                    "pictures with text. balanced: until 1 % of its finest detail could be known. fast: 5 %. "
                    "custom: what delta or switch_sigma say.",
                ),
                io.Int.Input(
                    "levels",
                    optional=True,
                    default=default.levels,
                    min=1,
                    max=MOST_LEVELS,
                    tooltip="How often the side is halved at the beginning. 1 begins at half the "
                    "side; 2 and 3 at a quarter and an eighth, for pictures of 1536 pixels and "
                    "more. Leave 1 unless the picture is very large.",
                ),
                *_switch_inputs(default),
                *_spectrum_inputs(default),
                config_input(),
            ],
            outputs=[io.Model.Output(tooltip="The same model, beginning with small pictures.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Any, config: Any = None, **settings: Any) -> io.NodeOutput:
        found = settings_for("progressive_config", settings, config)
        return io.NodeOutput(host.attach_progressive(model, found.settings, node_id(cls), found))


def _switch_inputs(default: ProgressiveSettings) -> list[Any]:
    return [
        io.Float.Input(
            "delta",
            optional=True,
            default=default.delta,
            min=0.001,
            max=0.5,
            step=0.001,
            round=False,
            tooltip="With mode custom: the full size begins when this share of the finest detail "
            "could be known. Larger is faster and loses more; 0.01 is balanced, 0.05 fast.",
        ),
        io.Float.Input(
            "switch_sigma",
            optional=True,
            default=default.switch_sigma,
            min=0.0,
            max=0.999,
            step=0.001,
            round=False,
            tooltip="With mode custom: the full size begins at this share of noise, 0 to 1 (the "
            "sigma of FLUX, Wan and Qwen-Image). Higher is slower and closer to the full picture. "
            "0 goes by delta.",
        ),
        io.Int.Input(
            "min_full_steps",
            optional=True,
            default=default.min_full_steps,
            min=0,
            max=1000,
            advanced=True,
            tooltip="At least so many steps at the end run at full size, whatever the mode says. "
            "Raise it if fine detail suffers; leave 6 otherwise.",
        ),
    ]


def _spectrum_inputs(default: ProgressiveSettings) -> list[Any]:
    return [
        io.Combo.Input(
            "spectrum",
            optional=True,
            options=list(SPECTRA),
            default=default.spectrum,
            advanced=True,
            tooltip="How strong fine detail is in this model's latents, which says when it "
            "appears. auto: what is known of the model; the report says when it is a guess. "
            "custom: spectrum_A and spectrum_beta.",
        ),
        io.Float.Input(
            "spectrum_A",
            optional=True,
            default=default.spectrum_A,
            min=0.001,
            max=1000000.0,
            step=0.001,
            round=False,
            advanced=True,
            tooltip="With spectrum custom: the power of latents at one cycle a picture, that of "
            "noise being 1. More makes the full size begin earlier. FLUX.1 has 203.6, Wan 2.1 "
            "219.5.",
        ),
        io.Float.Input(
            "spectrum_beta",
            optional=True,
            default=default.spectrum_beta,
            min=0.1,
            max=6.0,
            step=0.001,
            round=False,
            advanced=True,
            tooltip="With spectrum custom: how fast that power falls towards fine detail. Less "
            "makes the full size begin earlier. FLUX.1 has 1.92, Wan 2.1 2.42.",
        ),
    ]

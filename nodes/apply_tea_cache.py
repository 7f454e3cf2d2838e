"""Apply TeaCache."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.families import published_fits
from ..acceleration.policies.tea_cache import TeaCache
from ..acceleration.settings.caching import CALIBRATORS, TeaCacheSettings
from ..acceleration.settings.environment import settings_for
from .shared_inputs import config_input, corrector_input, node_id, window_inputs


class ApplyTeaCache(io.ComfyNode):
    """Skips all transformer blocks while the estimated change of the output is small."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        default = TeaCacheSettings()
        return io.Schema(
            node_id="AccelApplyTeaCache",
            display_name="Apply TeaCache",
            category="model/acceleration",
            description=(
                "Samples a diffusion transformer faster: estimates from the change of its input "
                "how much the output would change, and skips all blocks while that is little. "
                "Quality trade-off: the picture changes slightly."
            ),
            search_aliases=["teacache", "tea cache", "speed up", "cache"],
            inputs=[
                io.Model.Input("model", tooltip="A diffusion transformer such as FLUX or Wan."),
                *_threshold_inputs(default),
                *window_inputs(default),
                corrector_input(default),
                config_input(),
            ],
            outputs=[io.Model.Output(tooltip="The same model, sampling with TeaCache.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Any, config: Any = None, **settings: Any) -> io.NodeOutput:
        found = settings_for("teacache_config", settings, config)
        technique = TeaCache(found.settings, host.calibrated_fit)
        return io.NodeOutput(host.attach(model, technique, node_id(cls), found))


def _threshold_inputs(default: TeaCacheSettings) -> list[Any]:
    return [
        io.Float.Input(
            "rel_l1_thresh",
            optional=True,
            default=default.rel_l1_thresh,
            min=0.0,
            max=10.0,
            step=0.01,
            tooltip="How much estimated change may add up before a step is computed. Higher is "
            "faster and less faithful. 0 takes what is recommended for the detected model.",
        ),
        io.Combo.Input(
            "coefficients",
            optional=True,
            options=["auto", "raw", "custom", *published_fits()],
            default=default.coefficients,
            tooltip="How input change is turned into output change. auto: calibrated for this "
            "checkpoint, else published for this model, else raw. Choose by hand only for "
            "variants that look alike, such as flux-kontext or Wan 720p.",
        ),
        io.String.Input(
            "custom_coefficients",
            optional=True,
            default=default.custom_coefficients,
            advanced=True,
            tooltip="For coefficients = custom: numbers separated by commas, highest power first.",
        ),
        io.Int.Input(
            "max_continuous_cached_steps",
            optional=True,
            default=default.max_continuous_cached_steps,
            min=-1,
            max=1000,
            tooltip="How many steps in a row may be skipped; -1 is no limit. Lower keeps more "
            "detail.",
        ),
        io.Combo.Input(
            "calibrator",
            optional=True,
            options=list(CALIBRATORS),
            default=default.calibrator,
            advanced=True,
            tooltip="What replaces skipped blocks. none: the last result as it is, as published. "
            "The others forecast it and need more memory.",
        ),
        io.Int.Input(
            "taylorseer_order",
            optional=True,
            default=default.taylorseer_order,
            min=1,
            max=2,
            advanced=True,
            tooltip="How many past differences taylorseer and trajectory use.",
        ),
    ]

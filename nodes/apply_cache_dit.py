"""Apply Cache-DiT."""

from __future__ import annotations

from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.policies.cache_dit import CacheDiT
from ..acceleration.settings.caching import CALIBRATORS, SCM_POLICIES, SCM_PRESETS, CacheDiTSettings
from ..acceleration.settings.environment import settings_for
from .shared_inputs import config_input, corrector_input, node_id, window_inputs

CATEGORY = "model/acceleration"


class ApplyCacheDiT(io.ComfyNode):
    """Skips transformer blocks where the change between steps is small."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        default = CacheDiTSettings()
        return io.Schema(
            node_id="AccelApplyCacheDiT",
            display_name="Apply Cache-DiT",
            category=CATEGORY,
            description=(
                "Samples a diffusion transformer faster: where the first blocks show that little "
                "changed since the last computed step, the other blocks are skipped and their "
                "effect is reused or forecast. Quality trade-off: the picture changes slightly."
            ),
            search_aliases=["cache", "dbcache", "taylorseer", "speed up", "first block cache"],
            inputs=[
                io.Model.Input("model", tooltip="A diffusion transformer such as FLUX or Wan."),
                *_threshold_inputs(default),
                *_forecast_inputs(default),
                *_mask_inputs(default),
                *window_inputs(default),
                corrector_input(default),
                config_input(),
            ],
            outputs=[io.Model.Output(tooltip="The same model, sampling with Cache-DiT.")],
            hidden=[io.Hidden.unique_id],
        )

    @classmethod
    def execute(cls, model: Any, config: Any = None, **settings: Any) -> io.NodeOutput:
        found = settings_for("cache_config", settings, config)
        second = CacheDiT(found.second.settings) if found.second else None
        technique = CacheDiT(found.settings)
        return io.NodeOutput(host.attach_lossy(model, technique, node_id(cls), found, second))


def _threshold_inputs(default: CacheDiTSettings) -> list[Any]:
    return [
        io.Int.Input(
            "Fn_compute_blocks",
            optional=True,
            default=default.Fn_compute_blocks,
            min=1,
            max=128,
            advanced=True,
            tooltip="How many first blocks always run; their change decides. More is slower and "
            "decides better. Leave at 1 unless pictures suffer.",
        ),
        io.Int.Input(
            "Bn_compute_blocks",
            optional=True,
            default=default.Bn_compute_blocks,
            min=0,
            max=128,
            advanced=True,
            tooltip="How many last blocks always run after the skipped ones. More is slower and "
            "smooths the result. Leave at 0 for most models.",
        ),
        io.Int.Input(
            "max_warmup_steps",
            optional=True,
            default=default.max_warmup_steps,
            min=0,
            max=1000,
            tooltip="Steps at the start that are always computed; they lay out the picture. "
            "Fewer is faster, more keeps the composition. With 8 steps or less, try 2.",
        ),
        io.Float.Input(
            "residual_diff_threshold",
            optional=True,
            default=default.residual_diff_threshold,
            min=0.0,
            max=0.99,
            step=0.01,
            tooltip="How much the first blocks may change (relative L1) for a step to be skipped. "
            "Higher is faster and less faithful: 0.08 careful, 0.24 default, 0.4 aggressive, "
            "0 never skips.",
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
    ]


def _forecast_inputs(default: CacheDiTSettings) -> list[Any]:
    return [
        io.Combo.Input(
            "calibrator",
            optional=True,
            options=list(CALIBRATORS),
            default=default.calibrator,
            tooltip="What replaces skipped blocks. none: the last result as it is. taylorseer: "
            "extrapolated in time, usually much closer, needs more memory. trajectory: follows "
            "the first blocks' progress. blend: between taylorseer and trajectory, the best in "
            "most cases; needs the most memory.",
        ),
        io.Int.Input(
            "taylorseer_order",
            optional=True,
            default=default.taylorseer_order,
            min=1,
            max=2,
            advanced=True,
            tooltip="How many past differences taylorseer and trajectory use (blend uses two). 2 "
            "needs more memory and is better only when little is skipped.",
        ),
    ]


def _mask_inputs(default: CacheDiTSettings) -> list[Any]:
    return [
        io.Combo.Input(
            "scm_preset",
            optional=True,
            options=list(SCM_PRESETS),
            default=default.scm_preset,
            tooltip="A fixed plan of steps that must be computed, fitted to the step count "
            "(8 or more): slow computes 64 %, medium 54 %, fast 39 %, ultra 29 %.",
        ),
        io.Combo.Input(
            "scm_policy",
            optional=True,
            options=list(SCM_POLICIES),
            default=default.scm_policy,
            advanced=True,
            tooltip="What the plan's free steps do. dynamic: skip only below the threshold. "
            "static: always skip, the fastest and exactly predictable.",
        ),
        io.String.Input(
            "scm_compute_bins",
            optional=True,
            default=default.scm_compute_bins,
            advanced=True,
            tooltip="Own plan: lengths of the computed runs, such as 6,2,2,1. Together with "
            "scm_cache_bins they must sum to the steps. Empty uses scm_preset.",
        ),
        io.String.Input(
            "scm_cache_bins",
            optional=True,
            default=default.scm_cache_bins,
            advanced=True,
            tooltip="Own plan: lengths of the cached runs in between, such as 3,4,4.",
        ),
    ]

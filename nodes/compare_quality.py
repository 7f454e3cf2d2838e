"""Compare Quality."""

from __future__ import annotations

import json
import math
from typing import Any

from comfy_api.latest import io

from ..acceleration import host
from ..acceleration.plots import (
    FULL_SCALE,
    as_image_batch,
    comparison_plot,
    heat_map,
    heat_sheet,
)
from ..acceleration.quality.metrics import compare, pictures_of
from .shared_inputs import CATEGORY
from .shown import spread, temporary


class CompareQuality(io.ComfyNode):
    """Says how near accelerated pictures are to the same pictures sampled in full."""

    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="AccelCompareQuality",
            display_name="Compare Quality",
            category=CATEGORY,
            description="Compares accelerated pictures or video frames with the same ones sampled "
            "in full: in words, under a slider, by PSNR and SSIM, and as a map of the differences. "
            "With a minimum set, tells an automated graph whether the quality is accepted.",
            search_aliases=["psnr", "ssim", "lpips", "difference", "a/b", "compare", "quality"],
            inputs=[
                io.MultiType.Input(
                    "baseline",
                    types=[io.Image, io.Latent],
                    tooltip="Pictures or latents sampled without acceleration, with the same seed.",
                ),
                io.MultiType.Input(
                    "accelerated",
                    types=[io.Image, io.Latent],
                    tooltip="The same, sampled with acceleration. Same kind, size and batch.",
                ),
                *_limit_inputs(),
            ],
            outputs=[
                io.Boolean.Output(
                    display_name="accepted",
                    tooltip="Whether every picture reaches the minimums that are set.",
                ),
                io.Float.Output(
                    display_name="psnr",
                    tooltip="Mean PSNR in dB; infinite where all pictures are identical.",
                ),
                io.Float.Output(display_name="ssim", tooltip="Mean SSIM, 1 for identical ones."),
                io.Image.Output(
                    display_name="heat_map",
                    tooltip="Where pictures differ: dark is equal, light is far apart.",
                ),
                io.Image.Output(
                    display_name="plot", tooltip="The metrics over pictures or frames."
                ),
                io.String.Output(display_name="text", tooltip="The figures in words."),
                io.String.Output(display_name="json", tooltip="The figures as JSON."),
            ],
            is_output_node=True,
        )

    @classmethod
    def execute(
        cls,
        baseline: Any,
        accelerated: Any,
        min_psnr: float = 0.0,
        min_ssim: float = 0.0,
        heat_map_range: float = 0.0,
    ) -> io.NodeOutput:
        tick = host.progress(len(pictures_of(baseline, "baseline").values))
        comparison, differences = compare(baseline, accelerated, min_psnr, min_ssim, tick)
        found = comparison.as_dict()
        plot = as_image_batch(comparison_plot(found))
        full_scale = heat_map_range or FULL_SCALE * comparison.data_range
        heat = heat_map(differences, full_scale)
        psnr, ssim = comparison.mean("psnr"), comparison.mean("ssim")
        text, data = comparison.text(), json.dumps(found)
        return io.NodeOutput(
            comparison.accepted,
            math.inf if psnr is None else psnr,
            math.nan if ssim is None else ssim,
            heat,
            plot,
            text,
            data,
            ui={
                "text": [text, data],
                **_pictures(cls, baseline, accelerated),
                **_drawings(cls, heat, full_scale, plot),
            },
        )


def _pictures(cls: type[io.ComfyNode], baseline: Any, accelerated: Any) -> dict[str, Any]:
    """What lies under the slider, by the names of the host's own node for that; no latents."""
    if isinstance(baseline, dict):
        return {}
    return {
        "a_images": temporary(spread(baseline), cls),
        "b_images": temporary(spread(accelerated), cls),
    }


def _drawings(
    cls: type[io.ComfyNode], heat: Any, full_scale: float, plot: Any
) -> dict[str, list[Any]]:
    """The heat maps with their legend, and curves where there is more than one dot."""
    sheets = [as_image_batch(heat_sheet(one, full_scale)) for one in spread(heat)]
    found = [item for sheet in sheets for item in temporary(sheet, cls)]
    return {"drawings": found + (temporary(plot, cls) if len(heat) > 1 else [])}


def _limit_inputs() -> list[Any]:
    return [
        io.Float.Input(
            "min_psnr",
            optional=True,
            default=0.0,
            min=0.0,
            max=200.0,
            step=0.5,
            tooltip="Accept only if every picture has at least this PSNR in dB. Higher is "
            "stricter; 0 is off. Leave it off to only look at the figures.",
        ),
        io.Float.Input(
            "min_ssim",
            optional=True,
            default=0.0,
            min=0.0,
            max=1.0,
            step=0.005,
            tooltip="Accept only if every picture has at least this SSIM. Higher is stricter; 0 is "
            "off. Leave it off to only look at the figures.",
        ),
        io.Float.Input(
            "heat_map_range",
            optional=True,
            default=0.0,
            min=0.0,
            max=100.0,
            step=0.01,
            advanced=True,
            tooltip="The difference that is drawn lightest, in the units of the values (pictures "
            "go from 0 to 1). Lower shows fainter differences. 0 takes a tenth of the range, "
            "always the same, so that heat maps can be compared with each other.",
        ),
    ]

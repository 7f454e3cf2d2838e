"""NextDiT: Lumina-Image 2 and Z-Image, also in pixel space.

One stream that holds the prompt's tokens before the picture's. The refiner layers before the main
ones always run.
"""

from . import spectra
from .base import IMAGE, Arg, BlockStack, CacheDiTPreset, Family, Tap, TeaCacheFit
from .tokens import Along, Ranges, TokenPlan

FAMILY = Family(
    name="NextDiT",
    classes=("comfy.ldm.lumina.model.NextDiT",),
    stacks=(BlockStack("layers", {IMAGE: Arg("x", 0)}, (IMAGE,)),),
    resident_from_gb=30.0,
    models="Z-Image, Z-Image-Turbo, Z-Image pixel space, Lumina-Image 2",
    tap=Tap("attention"),
    fits=(
        TeaCacheFit(
            "lumina_2",
            (-874.643948, 466.059906, -75.1559762, 5.32836175, -0.0327258296),
            0.38,
        ),
        TeaCacheFit(
            "lumina_2_v2",
            (
                225.7042019806413,
                -608.8453716535591,
                304.1869942338369,
                124.21267720116742,
                -1.4089066892956552,
            ),
            0.38,
        ),
    ),
    # Z-Image (width 3840) has no published fit; Lumina-Image 2 has width 2304.
    choose_fit=lambda network: "lumina_2" if network.dim == 2304 else None,
    cache_dit=(
        CacheDiTPreset(
            "Z-Image-Turbo, 9 steps",
            {
                "residual_diff_threshold": 0.12,
                "scm_compute_bins": "5,1,1",
                "scm_cache_bins": "1,1",
            },
            "cache-dit, example zimage_turbo",
        ),
    ),
    spectrum=lambda network: spectra.FLUX_1,
    split={
        "layers": TokenPlan(
            (
                Along(Arg("x_mask", 1), -1, IMAGE),
                Along(Arg("freqs_cis", 2), 1, IMAGE),
                Ranges(Arg("timestep_zero_index", 4), IMAGE),
            )
        )
    },
)

"""What Progressive Resolution was asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from ..setting import Checked, setting

FINE_SHARE = 0.96
"""Share of noise at which ``fine`` switches. With a switch at 0.939 text in pictures was wrong, at
0.961 right (reports of users of FLUX.1, whose published threshold is 0.85)."""
DELTAS = {"balanced": 0.01, "fast": 0.05}
"""SGLang-Diffusion's default, and what it calls faster."""

FLUX_1 = (203.615097, 1.915461)
"""A and β of FLUX.1's autoencoder (SGLang-Diffusion), the default of a custom spectrum."""


@dataclass(frozen=True)
class ProgressiveSettings(Checked):
    """What one Progressive Resolution node was asked to do.

    ``delta`` and ``switch_sigma`` count with mode custom, A and β with spectrum custom.
    """

    mode: str = setting(
        "auto",
        "How long the picture stays small. auto: fine for pictures, balanced for videos. off: "
        "never. fine: only in the strongest noise, for pictures with text. balanced: until 1 % of "
        "its finest detail could be known. fast: 5 %. custom: what delta or switch_sigma say.",
        choices=("auto", "off", "fine", "balanced", "fast", "custom"),
    )
    levels: int = setting(
        1,
        "How often the side is halved at the beginning. 1 begins at half the side; 2 and 3 at a "
        "quarter and an eighth, for pictures of 1536 pixels and more. Leave 1 unless the picture "
        "is very large.",
        lowest=1,
        highest=3,
        limit="it must be 1 (half the side) to 3 (an eighth); 1 is usual",
    )
    delta: float = setting(
        0.01,
        "With mode custom: the full size begins when this share of the finest detail could be "
        "known. Larger is faster and loses more; 0.01 is balanced, 0.05 fast.",
        lowest=0.001,
        highest=0.5,
        step=0.001,
        limit="it must lie between 0.001 and 0.5; 0.01 is usual, more switches later",
    )
    switch_sigma: float = setting(
        0.0,
        "With mode custom: the full size begins at this share of noise, 0 to 1 (the sigma of FLUX, "
        "Wan and Qwen-Image). Higher is slower and closer to the full picture. 0 goes by delta.",
        lowest=0.0,
        highest=0.999,
        step=0.001,
        limit="it must be a share of noise below 1, or 0 to go by delta; 0.96 is careful",
    )
    spectrum: str = setting(
        "auto",
        "How strong fine detail is in this model's latents, which says when it appears. auto: what "
        "is known of the model; the report says when it is a guess. custom: spectrum_A and "
        "spectrum_beta.",
        choices=("auto", "custom"),
        advanced=True,
    )
    spectrum_A: float = setting(
        FLUX_1[0],
        "With spectrum custom: the power of latents at one cycle a picture, that of noise being 1. "
        "More makes the full size begin earlier. FLUX.1 has 203.6, Wan 2.1 219.5.",
        lowest=0.001,
        highest=1000000.0,
        step=0.001,
        limit="it must be at least 0.001 and at most 1e6",
        advanced=True,
    )
    spectrum_beta: float = setting(
        FLUX_1[1],
        "With spectrum custom: how fast that power falls towards fine detail. Less makes the full "
        "size begin earlier. FLUX.1 has 1.92, Wan 2.1 2.42.",
        lowest=0.1,
        highest=6.0,
        step=0.001,
        limit="it must lie between 0.1 and 6; pictures have about 2",
        advanced=True,
    )
    min_full_steps: int = setting(
        6,
        "At least so many steps at the end run at full size, whatever the mode says. Raise it if "
        "fine detail suffers; leave 6 otherwise.",
        lowest=0,
        highest=1000,
        limit="it must be between 0 and 1000; 6 is usual",
        advanced=True,
    )

    def goal(self, is_video: bool) -> tuple[str, float | None, float]:
        """The mode in force, its share of noise at the switch or None to go by δ, and δ."""
        mode = self.mode
        if mode == "auto":
            mode = "balanced" if is_video else "fine"
        if mode == "custom":
            return mode, self.switch_sigma or None, self.delta
        return mode, None if mode in DELTAS else FINE_SHARE, DELTAS.get(mode, self.delta)

"""What Progressive Resolution was asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import AccelerationError, shown

MODES = ("auto", "off", "fine", "balanced", "fast", "custom")
SPECTRA = ("auto", "custom")
MOST_LEVELS = 3

FINE_SHARE = 0.96
"""Share of noise at which ``fine`` switches. With a switch at 0.939 text in pictures was wrong, at
0.961 right (reports of users of FLUX.1, whose published threshold is 0.85)."""
DELTAS = {"balanced": 0.01, "fast": 0.05}
"""SGLang-Diffusion's default, and what it calls faster."""

FLUX_1 = (203.615097, 1.915461)
"""A and β of FLUX.1's autoencoder (SGLang-Diffusion), the default of a custom spectrum."""


@dataclass(frozen=True)
class ProgressiveSettings:
    """Validated settings of one Progressive Resolution node.

    ``delta`` and ``switch_sigma`` count with mode custom, A and β with spectrum custom.

    Raises
    ------
    AccelerationError
        With one sentence that names the field, its value, the limit and the way out.
    """

    mode: str = "auto"
    levels: int = 1
    delta: float = 0.01
    switch_sigma: float = 0.0
    spectrum: str = "auto"
    spectrum_A: float = FLUX_1[0]
    spectrum_beta: float = FLUX_1[1]
    min_full_steps: int = 6

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("mode", self.mode, MODES),
            ("spectrum", self.spectrum, SPECTRA),
        ):
            if value not in allowed:
                raise AccelerationError(
                    f"{name} is {shown(value)}: choose one of {', '.join(allowed)}."
                )
        if not 1 <= self.levels <= MOST_LEVELS:
            raise AccelerationError(
                f"levels is {self.levels}: it must be 1 (half the side) to {MOST_LEVELS} (an "
                "eighth); 1 is usual."
            )
        if not 0.0 < self.delta < 1.0:
            raise AccelerationError(
                f"delta is {self.delta:g}: it must lie between 0 and 1; 0.01 is usual, more "
                "switches later."
            )
        if not 0.0 <= self.switch_sigma < 1.0:
            raise AccelerationError(
                f"switch_sigma is {self.switch_sigma:g}: it must be a share of noise below 1, or 0 "
                "to go by delta; 0.96 is careful."
            )
        if not 0.0 < self.spectrum_A <= 1e6 or not 0.0 < self.spectrum_beta <= 6.0:
            raise AccelerationError(
                f"spectrum_A is {self.spectrum_A:g} and spectrum_beta is {self.spectrum_beta:g}: "
                "A must lie above 0 and beta between 0 and 6; pictures have about 2."
            )
        if not 0 <= self.min_full_steps <= 1000:
            raise AccelerationError(
                f"min_full_steps is {self.min_full_steps}: it must be between 0 and 1000; 6 is "
                "usual."
            )

    def goal(self, is_video: bool) -> tuple[str, float | None, float]:
        """The mode in force, its share of noise at the switch or None to go by δ, and δ."""
        mode = self.mode
        if mode == "auto":
            mode = "balanced" if is_video else "fine"
        if mode == "custom":
            return mode, self.switch_sigma or None, self.delta
        return mode, None if mode in DELTAS else FINE_SHARE, DELTAS.get(mode, self.delta)

"""What Performance Mode was asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import AccelerationError, shown

MODES = ("auto", "speed", "memory", "manual")
"""Output-preserving levers, as SGLang-Diffusion names them."""
APPROXIMATIONS = ("off", "quality", "balanced", "fast", "ultra", "target")
"""The quality-tradeoff lever."""

PRESET_SPEEDUPS = {"quality": 1.6, "balanced": 2.1, "fast": 2.7, "ultra": 3.1}
"""Speed-ups that the presets plan for, a little above what they are said to give: 1.5, 2, 2.5 and 3
times. A plan counts the blocks; forecasts, sampler and prompt take their time too. What they reach
and cost on the demo models: `benchmarks/performance.py`, on a GPU: `benchmarks/full_size.py`."""

MOST = 10.0


@dataclass(frozen=True)
class PerformanceSettings:
    """Validated settings of one Performance Mode node.

    ``target_speedup`` counts when ``approximation`` is ``"target"``.

    Raises
    ------
    AccelerationError
        With one sentence that names the field, its value, the limit and the way out.
    """

    mode: str = "auto"
    approximation: str = "quality"
    target_speedup: float = 2.0

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("mode", self.mode, MODES),
            ("approximation", self.approximation, APPROXIMATIONS),
        ):
            if value not in allowed:
                raise AccelerationError(
                    f"{name} is {shown(value)}: choose one of {', '.join(allowed)}."
                )
        if not 1.0 <= self.target_speedup <= MOST:
            raise AccelerationError(
                f"target_speedup is {self.target_speedup:g}: it must be between 1 (nothing is "
                f"skipped) and {MOST:g}; 1.5 to 3 are usual."
            )

    @property
    def speedup(self) -> float | None:
        """The planned speed-up, None for none."""
        if self.approximation == "off":
            return None
        if self.approximation == "target":
            return self.target_speedup
        return PRESET_SPEEDUPS[self.approximation]

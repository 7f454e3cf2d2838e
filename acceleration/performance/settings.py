"""What Performance Mode was asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from ..setting import Checked, setting

PRESET_SPEEDUPS = {"quality": 1.5, "balanced": 2.0, "fast": 2.5, "ultra": 3.0}
"""Speed-ups that the presets plan for. What they reach and cost on the demo models:
`benchmarks/performance.py`, on a GPU: `benchmarks/full_size.py`."""


@dataclass(frozen=True)
class PerformanceSettings(Checked):
    """What one Performance Mode node was asked to do."""

    mode: str = setting(
        "auto",
        "Weights and kernels; the picture stays. auto: decides by the free memory. speed: all "
        "weights on the GPU, the fastest exact attention kernel. memory: weights are streamed, "
        "slower and small. manual: touches nothing. Leave auto unless you know better.",
        choices=("auto", "speed", "memory", "manual"),
    )
    approximation: str = setting(
        "quality",
        "How much of the picture may be given for speed. off: nothing. quality, balanced, fast, "
        "ultra: each faster and less faithful than the one before; measured on one GPU, up to "
        "1.47, 1.87, 2.28 and 2.61 times. target: what target_speedup says. Models of fewer than "
        "8 steps are left alone.",
        choices=("off", "quality", "balanced", "fast", "ultra", "target"),
    )
    target_speedup: float = setting(
        2.0,
        "With approximation target: how many times faster sampling shall be. Higher is faster and "
        "less faithful; 1 skips nothing. No threshold to guess: the number of computed evaluations "
        "follows from it.",
        lowest=1.0,
        highest=10.0,
        step=0.1,
        limit="it must be between 1 (nothing is skipped) and 10; 1.5 to 3 are usual",
    )

    @property
    def speedup(self) -> float | None:
        """The planned speed-up, None for none."""
        if self.approximation == "off":
            return None
        if self.approximation == "target":
            return self.target_speedup
        return PRESET_SPEEDUPS[self.approximation]

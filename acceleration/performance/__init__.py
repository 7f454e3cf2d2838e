"""Performance Mode: what an artist chooses, turned into levers."""

from .settings import APPROXIMATIONS, MODES, PRESET_SPEEDUPS, PerformanceSettings

__all__ = ["APPROXIMATIONS", "MODES", "PRESET_SPEEDUPS", "PerformanceSettings"]

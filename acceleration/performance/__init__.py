"""Performance Mode: what an artist chooses, turned into levers."""

from .settings import PRESET_SPEEDUPS, PerformanceSettings

__all__ = ["PRESET_SPEEDUPS", "PerformanceSettings"]

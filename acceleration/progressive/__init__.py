"""Progressive resolution: small pictures, matched noise and when to switch, as plain functions."""

from .corner import Corner, coarse_side, packed_size
from .noise import FLOW, VARIANCE, Kind
from .report import Predictions, ProgressiveReport
from .settings import ProgressiveSettings
from .spectrum import PowerLaw, fit
from .switches import Switches, choose, switches

__all__ = [
    "FLOW",
    "VARIANCE",
    "Corner",
    "Kind",
    "PowerLaw",
    "Predictions",
    "ProgressiveReport",
    "ProgressiveSettings",
    "Switches",
    "choose",
    "coarse_side",
    "fit",
    "packed_size",
    "switches",
]

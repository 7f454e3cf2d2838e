"""The only room that imports ComfyUI: its patch points, its model objects, its memory."""

from .caching import KEY, attach, branch_key, last_report
from .calibrations import (
    calibrated_fit,
    calibration_file,
    checkpoint_identity,
    save_calibration,
)
from .levers import Lever, LeverReport, lever_of, levers_of, put
from .model import (
    free_memory,
    network_of,
    sample,
    sampler_choices,
    sampler_name,
    structure_of,
)

__all__ = [
    "KEY",
    "Lever",
    "LeverReport",
    "attach",
    "branch_key",
    "calibrated_fit",
    "calibration_file",
    "checkpoint_identity",
    "free_memory",
    "last_report",
    "lever_of",
    "levers_of",
    "network_of",
    "put",
    "sample",
    "sampler_choices",
    "sampler_name",
    "save_calibration",
    "structure_of",
]

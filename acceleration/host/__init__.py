"""The only room that imports ComfyUI: its patch points, its model objects, its memory."""

from .attention import ATTENTION_KEY, attach_attention, device_here
from .caching import KEY, attach, branch_key, last_report
from .calibrations import (
    calibrated_fit,
    calibration_file,
    checkpoint_identity,
    save_calibration,
    stored_calibration,
)
from .config_files import (
    choices,
    configuration_text,
    fingerprint,
    full_name,
    load_configuration,
    save_configuration,
    settings_of,
)
from .far import SPLIT_KEY
from .levers import Lever, LeverReport, lever_of, levers_of, nearest_sampler, put
from .model import network_of, progress, sample, sampler_choices, sampler_name, structure_of
from .performance import PERFORMANCE_KEY, attach_performance
from .preset_runs import add_routes
from .profiling import profile
from .progressive import attach_progressive
from .quantize import QUANTIZE_KEY, attach_quantize
from .split import attach_split
from .stages import PROGRESSIVE_KEY

__all__ = [
    "ATTENTION_KEY",
    "KEY",
    "PERFORMANCE_KEY",
    "PROGRESSIVE_KEY",
    "QUANTIZE_KEY",
    "SPLIT_KEY",
    "Lever",
    "LeverReport",
    "add_routes",
    "attach",
    "attach_attention",
    "attach_performance",
    "attach_progressive",
    "attach_quantize",
    "attach_split",
    "branch_key",
    "calibrated_fit",
    "calibration_file",
    "checkpoint_identity",
    "choices",
    "configuration_text",
    "device_here",
    "fingerprint",
    "full_name",
    "last_report",
    "lever_of",
    "levers_of",
    "load_configuration",
    "nearest_sampler",
    "network_of",
    "profile",
    "progress",
    "put",
    "sample",
    "sampler_choices",
    "sampler_name",
    "save_calibration",
    "save_configuration",
    "settings_of",
    "stored_calibration",
    "structure_of",
]

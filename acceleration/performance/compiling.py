"""Whether compiling the blocks pays within one run."""

from __future__ import annotations

import importlib.util

LONG_VIDEO_STEPS = 20
"""Steps of a video model from which speed mode compiles: a run of minutes, against the half
minute or so that compiling one block class takes. A judgement, not a measurement."""


def has_compiler(device_type: str) -> bool:
    """Whether torch.compile has what it needs to make code for a device."""
    return device_type == "cuda" and importlib.util.find_spec("triton") is not None


def verdict(mode: str, device_type: str, is_video: bool, steps: int, compiled: bool) -> str:
    """Why blocks are compiled or not; begins with "blocks are compiled" when they are.

    ``compiled`` says that another node has set torch.compile on the model already.
    """
    if mode != "speed":
        return ""
    if compiled:
        return "set by another node, kept"
    if not has_compiler(device_type):
        return "no working compiler for this device, so nothing is compiled"
    if not is_video or steps < LONG_VIDEO_STEPS:
        return (
            "this run is too short to pay compiling back; for many runs of one size add ComfyUI's "
            "TorchCompileModel"
        )
    return f"blocks are compiled, which {steps} steps of a video pay back"


def compiles(sentence: str) -> bool:
    """Whether a verdict is for compiling."""
    return sentence.startswith("blocks are compiled")

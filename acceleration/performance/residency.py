"""Where the weights stay: SGLang-Diffusion's rules for its performance modes, as data and reasons.

The host's memory manager does the work. Here it is only decided whether to ask it to load the
whole model, to keep as little as possible on the device, or to leave the choice to it.
"""

from __future__ import annotations

from dataclasses import dataclass

GB = 1024**3

HOST, RESIDENT, STREAM = "left to ComfyUI", "resident", "streamed"

AMPLE = 2.0
"""All weights this many times over: nothing needs to be moved."""
TIGHT = 0.8
"""Weights of the model above this share of the free memory do not stay whole beside the work."""
LARGEST_SHARE = 0.9
"""Speed mode loads a model whole up to this share of the free memory; above it would run out."""


@dataclass(frozen=True)
class Memory:
    """What there is and what is wanted, in bytes."""

    free: int
    """Free on the device, with what this model holds there counted as free."""
    weights: int
    """Weights of the model that is sampled."""
    all_weights: int
    """Those and the weights of every other loaded model."""


@dataclass(frozen=True)
class Residency:
    """Where the weights stay, and why in one sentence."""

    placement: str
    why: str

    @property
    def loads_whole(self) -> bool:
        """Whether the host is asked to load the whole model."""
        return self.placement == RESIDENT

    @property
    def offloads(self) -> bool:
        """Whether the host is asked to keep as little as possible on the device."""
        return self.placement == STREAM


def decide(mode: str, memory: Memory, resident_gb: float) -> Residency:
    """Where the weights stay in a mode other than manual.

    Parameters
    ----------
    resident_gb
        Free memory in GB from which this family's transformer stays on the device
        (SGLang-Diffusion's thresholds).
    """
    free, weights = _gb(memory.free), _gb(memory.weights)
    if mode == "memory":
        return Residency(STREAM, f"the weights ({weights}) are streamed to keep memory free")
    if mode == "speed":
        if memory.weights <= LARGEST_SHARE * memory.free:
            return Residency(RESIDENT, f"the weights ({weights}) stay on the device ({free} free)")
        return Residency(
            HOST,
            f"the weights ({weights}) do not fit into {free}, so ComfyUI streams what is too much",
        )
    if memory.free >= AMPLE * memory.all_weights:
        every = _gb(memory.all_weights)
        return Residency(
            RESIDENT, f"{free} free is at least twice all weights ({every}): everything stays"
        )
    if memory.free >= resident_gb * GB and memory.weights <= LARGEST_SHARE * memory.free:
        return Residency(
            RESIDENT,
            f"{free} free is at least the {resident_gb:g} GB of this family: its transformer stays",
        )
    if memory.weights > TIGHT * memory.free:
        return Residency(
            HOST,
            f"the weights ({weights}) are more than {TIGHT:.0%} of {free} free: ComfyUI streams "
            "what does not fit",
        )
    return Residency(HOST, f"the weights ({weights}) fit into {free} free: left to ComfyUI")


def _gb(size: int) -> str:
    return f"{size / GB:.1f} GB" if size >= GB / 10 else f"{size / 2**20:.0f} MB"

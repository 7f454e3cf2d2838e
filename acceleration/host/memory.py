"""The host's memory: what residuals may take, and what the host is told to keep free for them.

ComfyUI loads as much of a model as fits beside the memory that it expects one evaluation to need
(``BaseModel.memory_required``), and nothing else is left free. Residuals are part of what sampling
needs, so for the length of PREPARE_SAMPLING, when the host plans its loading, the model answers
with their bytes added. All pinned hosts ask there and only there before they load.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from itertools import zip_longest
from typing import Any

import torch

from ..failures import log_failure
from ..families import Family, Structure
from ..lack_of_memory import is_out_of_memory
from ..store.compact import BF16, FP8

CPU_SHARE = 0.5
"""Share of the free CPU memory that residuals may take; pinned memory cannot be swapped out, and
torch rounds its pieces up to a power of two."""

UNKNOWN_SHARE = 0.5
"""Share of a device's free memory for residuals where the host's own need is not known."""

TRANSIENT = 3
"""Residuals that are on the device for a moment even when they are kept on the CPU: what is
fetched, what is forecast from it, and a difference in between."""


class HostMemory:
    """What one sampling run asks of the host's memory.

    Parameters
    ----------
    patcher
        The MODEL that is sampled.
    branches
        How many branches the run is expected to have.
    """

    def __init__(self, patcher: Any, branches: int) -> None:
        self._patcher = patcher
        self.branches = branches
        self._evaluation: float | None = None

    @property
    def device(self) -> str:
        """Kind of device that the model runs on."""
        return str(self._patcher.load_device.type)

    def room(self, device: torch.device) -> int:
        """Bytes that residuals may take: what is free and the model does not need to work."""
        import comfy.model_management

        free = comfy.model_management.get_free_memory(device)
        if device.type == "cpu":
            return int(CPU_SHARE * free)
        if pages_weights(self._patcher):
            # Idle weights of other models make way on demand; those of this one should stay.
            evictable = self._patcher.get_free_memory(device) - self._patcher.loaded_size()
            free = max(free, evictable)
        if self._evaluation is None:
            return int(UNKNOWN_SHARE * free)
        return max(int(free - self._evaluation), 0)

    def is_out_of_memory(self, error: BaseException) -> bool:
        """Whether an error says that memory ran out, on a device or on the CPU."""
        import comfy.model_management

        # From 0.18 on the host knows the errors that CUDA reports late, and clears them.
        is_oom = getattr(comfy.model_management, "is_oom", None)
        return (is_oom is not None and bool(is_oom(error))) or is_out_of_memory(error)

    def prepare(self, mode: str, needed: int, one: int, load: Callable[[], Any]) -> Any:
        """Load models while the host counts residuals as part of what sampling needs.

        Parameters
        ----------
        mode
            The ``residual_device`` input.
        needed
            Bytes that all residuals of the run take as they are.
        one
            Bytes of one of them.
        load
            Plans and loads.
        """
        model = self._patcher.model
        before = vars(model).get("memory_required")
        original = model.memory_required
        asked: list[float] = []

        def memory_required(*args: Any, **kwargs: Any) -> float:
            evaluation = float(original(*args, **kwargs))
            # The host asks first for both prompts at once, then for the least it can do with.
            self._evaluation = min(evaluation, self._evaluation or evaluation)
            if not asked:
                asked.append(0.0)  # what goes wrong in our counting must not keep a model unloaded
                try:
                    asked[0] = self._to_keep_free(mode, needed, one, evaluation)
                except Exception as error:
                    log_failure(error)
            return evaluation + asked[0]

        vars(model)["memory_required"] = memory_required
        try:
            return load()
        finally:
            if before is None:
                vars(model).pop("memory_required", None)
            else:
                vars(model)["memory_required"] = before

    def _to_keep_free(self, mode: str, needed: int, one: int, evaluation: float) -> float:
        transient = TRANSIENT * one
        where, _, storage = mode.partition("_")
        if where == "gpu":
            bytes_now = _item_size(self._patcher.model)
            bytes_kept = min({BF16: 2, FP8: 1}.get(storage, bytes_now), bytes_now)
            return needed * bytes_kept / bytes_now + transient
        if where == "cpu":
            return transient
        # Weights that must be fetched for every evaluation cost more than residuals that are.
        import comfy.model_management as management

        total = management.get_total_memory(self._patcher.load_device)
        taken = self._patcher.model_size() + evaluation + management.extra_reserved_memory()
        return needed + transient if taken + needed + transient <= total else transient


def pages_weights(patcher: Any) -> bool:
    """Whether the host fetches weights as they are used (DynamicVRAM, its default on NVIDIA)."""
    is_dynamic = getattr(patcher, "is_dynamic", None)
    return is_dynamic is not None and bool(is_dynamic())


def expected_branches(guider: Any) -> int:
    """How many branches a run of this guider is going to have: one a cond that is evaluated."""
    conds = dict(getattr(guider, "conds", None) or {})
    if getattr(guider, "cfg", None) == 1.0 and "positive" in conds:
        conds.pop("negative", None)  # the host leaves it out
    return max(sum(len(found or ()) for found in conds.values()), 1)


def hidden_bytes(patcher: Any, structure: Structure, shape: Sequence[int]) -> int:
    """An estimate of the bytes of one image stream ``[B, L, D]``, before anything has run.

    D is what most weights of the blocks take in, L the number of patches of the noise
    ``[B, C, …]``. Reference pictures and text that share the stream are not counted, and where the
    host packs several latents into one tensor nothing can be said: 0. The store decides from real
    sizes later.
    """
    network = patcher.model.diffusion_model
    widths: Counter[int] = Counter()
    for _, block in structure.blocks(network):
        for module in block.modules():
            width, made = getattr(module, "in_features", None), getattr(module, "out_features", 0)
            if isinstance(width, int) and isinstance(made, int):
                widths[width] += width * made
    packed = len(shape) == 3 and shape[1] == 1
    if not widths or packed:
        return 0
    width = widths.most_common(1)[0][0]
    return int(
        shape[0]
        * latent_tokens(structure.family, network, shape)
        * width
        * _item_size(patcher.model)
    )


def _item_size(model: Any) -> int:
    dtype: torch.dtype = model.get_dtype_inference()
    return dtype.itemsize


def latent_tokens(family: Family, network: Any, shape: Sequence[int]) -> int:
    """Tokens that a network cuts a latent ``[B, C, …]`` into, without text and references."""
    patch = 1 if family.packed_latents else getattr(network, "patch_size", None)
    if isinstance(patch, int):
        patch = (patch, patch)
    if not isinstance(patch, (tuple, list)) or not all(isinstance(p, int) for p in patch):
        patch = (2, 2)
    count = 1
    for size, divisor in zip_longest(reversed(shape[2:]), reversed(patch), fillvalue=1):
        count *= -(-size // max(divisor, 1))
    return count

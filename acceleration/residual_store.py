"""Where the tensors of a sampling run live.

Residuals are as large as the hidden state and several are kept per branch; the host's memory
manager does not see them. The store decides once a run whether they stay on the device.
"""

from __future__ import annotations

from collections.abc import Callable

import torch

# Share of the device's free memory that residuals may take before "auto" moves them to the CPU.
AUTO_SHARE = 0.5


class ResidualStore:
    """Keeps tensors on their device or in (pinned) CPU memory.

    Parameters
    ----------
    mode
        ``"gpu"``, ``"cpu"`` or ``"auto"`` (decided from real sizes at the first tensor).
    free_memory
        Returns the free bytes of a device.
    expected_tensors
        How many tensors of the first one's size the run is going to keep.
    """

    def __init__(
        self, mode: str, free_memory: Callable[[torch.device], int], expected_tensors: int
    ) -> None:
        self._mode = mode
        self._free_memory = free_memory
        self._expected_tensors = expected_tensors
        self.peak_bytes = 0

    @property
    def placement(self) -> str:
        """Where tensors are kept: ``"gpu"``, ``"cpu"``, or ``"auto"`` while undecided."""
        return self._mode

    def put(self, tensor: torch.Tensor, host_math: bool = False) -> torch.Tensor:
        """Take a tensor that nobody else writes to and return it where it is kept.

        ``host_math`` says that the kept tensor is computed with where it lies, so a copy to the
        CPU must have arrived.
        """
        if tensor.device.type == "cpu":
            self._mode = "cpu"
            return tensor
        if self._mode == "auto":
            needed = tensor.numel() * tensor.element_size() * self._expected_tensors
            fits = needed <= AUTO_SHARE * self._free_memory(tensor.device)
            self._mode = "gpu" if fits else "cpu"
        if self._mode == "gpu":
            return tensor
        if tensor.device.type != "cuda" or host_math:
            return tensor.cpu()
        try:
            pinned = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=True)
        except RuntimeError:
            return tensor.cpu()  # no more memory can be pinned
        return pinned.copy_(tensor, non_blocking=True)

    @staticmethod
    def get(kept: torch.Tensor, device: torch.device) -> torch.Tensor:
        """The kept tensor on ``device``."""
        if kept.device == device:
            return kept
        return kept.to(device, non_blocking=kept.is_pinned())

    def note_bytes(self, held: int) -> None:
        """Record how many bytes are held now."""
        self.peak_bytes = max(self.peak_bytes, held)


def bytes_of(tensors: list[torch.Tensor]) -> int:
    """Bytes of storage behind tensors, each storage counted once."""
    storages = {t.untyped_storage().data_ptr(): t.untyped_storage().nbytes() for t in tensors}
    return sum(storages.values())

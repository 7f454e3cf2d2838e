"""The low corner of a latent's orthonormal DCT-II, as a smaller latent, and back.

Along an axis both transforms together are one matrix ``[small, size]`` with orthonormal rows, and
its transpose is the way back with zeros above the corner. At the sizes of latents two products with
it are faster than Fourier transforms, odd sizes and any ratio included.
"""

from __future__ import annotations

import math

import torch


def dct_matrix(size: int) -> torch.Tensor:
    """The orthonormal DCT-II as a matrix ``[size, size]`` in float64, lowest frequency first."""
    place = torch.arange(size, dtype=torch.float64) + 0.5
    order = torch.arange(size, dtype=torch.float64)
    matrix = torch.cos(math.pi / size * order[:, None] * place) * math.sqrt(2.0 / size)
    matrix[0] /= math.sqrt(2.0)
    return matrix


def corner_matrix(size: int, small: int) -> torch.Tensor:
    """From ``size`` values to the ``small`` values with the same lowest frequencies, float32.

    Returns
    -------
    ``[small, size]`` with orthonormal rows, on the processor.
    """
    return (dct_matrix(small).T @ dct_matrix(size)[:small]).float()


def coarse_side(size: int, level: int) -> int:
    """Side of a latent that is 2^level times smaller: rounded up to an even number.

    Most networks take patches of two, and rounding up keeps the ratio at most 2^level.
    """
    small = -(-size // 2**level)
    return small + small % 2


def packed_size(size: tuple[int, int], level: int, packing: int = 1) -> tuple[int, int]:
    """Height and width of a coarse latent whose channels hold squares of ``packing`` values."""
    height, width = (coarse_side(side * packing, level) for side in size)
    return -(-height // packing), -(-width // packing)


class Corner:
    """Latents of one size, small and back.

    Parameters
    ----------
    size, small
        Height and width before and after.
    packing
        Sides of the squares that the channels of a latent hold, as those of FLUX.2 do: they are
        laid out before and packed again after, as frequencies of a packed grid mean nothing.
    """

    def __init__(self, size: tuple[int, int], small: tuple[int, int], packing: int = 1) -> None:
        self.size, self.small, self.packing = size, small, packing
        self.ratio = math.sqrt(size[0] / small[0] * size[1] / small[1])
        """Side before divided by side after, the mean of both axes."""
        self.ratios = (size[0] / small[0], size[1] / small[1])
        self._matrices: dict[torch.device, tuple[torch.Tensor, torch.Tensor]] = {}

    def down(self, x: torch.Tensor) -> torch.Tensor:
        """The low corner ``[…, h, w]`` of ``[…, H, W]``: white noise keeps its variance."""
        rows, columns = self._on(x.device)
        return self._through(x, rows, columns)

    def up(self, x: torch.Tensor) -> torch.Tensor:
        """``[…, H, W]`` whose low corner is ``[…, h, w]``, with zeros above it."""
        rows, columns = self._on(x.device)
        return self._through(x, rows.T, columns.T)

    def low_pass(self, x: torch.Tensor) -> torch.Tensor:
        """The same picture with fewer values: a constant stays what it is."""
        return self.down(x) / self.ratio

    def _on(self, device: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
        if device not in self._matrices:
            pairs = zip(self.size, self.small, strict=True)
            rows, columns = (
                corner_matrix(a * self.packing, b * self.packing).to(device) for a, b in pairs
            )
            self._matrices[device] = rows, columns
        return self._matrices[device]

    def _through(self, x: torch.Tensor, rows: torch.Tensor, columns: torch.Tensor) -> torch.Tensor:
        laid_out = x.float()
        if self.packing > 1:
            laid_out = torch.nn.functional.pixel_shuffle(laid_out, self.packing)
        found = rows @ laid_out @ columns.T
        if self.packing > 1:
            found = torch.nn.functional.pixel_unshuffle(found, self.packing)
        return found.to(x.dtype)

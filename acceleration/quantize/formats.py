"""Formats of quantized weights, as data."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Format:
    """One format of weights with its activations.

    Sources: comfy-kitchen 0.2.26 (layouts and their scales), NVIDIA's block formats, OCP MX 1.0.
    """

    name: str
    """The value in the node's list."""
    bits: int
    """Of one weight."""
    block: int = 0
    """Weights along the input that share a scale; 0 is a whole row."""
    scale_bytes: int = 4
    """Of one scale."""
    multiple: int = 1
    """The host fills both sides of a weight up to a multiple of this."""
    scale_rows: int = 1
    scale_columns: int = 1
    """Scales lie in tiles of so many rows and columns, filled up."""
    capability: tuple[int, int] = (0, 0)
    """The lowest compute capability of an NVIDIA GPU that has a kernel."""
    processor: bool = False
    """Whether processors compute in it, too."""

    def bytes(self, rows: int, columns: int) -> int:
        """Of a weight ``[rows, columns]`` with its scales."""
        rows, columns = (_up(size, self.multiple) for size in (rows, columns))
        weights = rows * columns * self.bits // 8
        if not self.block:
            return weights + rows * self.scale_bytes
        scales = _up(rows, self.scale_rows) * _up(columns // self.block, self.scale_columns)
        # nvfp4 has one more scale for the whole weight.
        whole = 4 if self.bits == 4 else 0
        return weights + scales * self.scale_bytes + whole


def _up(size: int, multiple: int) -> int:
    return -(-size // multiple) * multiple


INT8, FP8, MXFP8, NVFP4 = "int8", "fp8", "mxfp8", "nvfp4"

FORMATS: dict[str, Format] = {
    made.name: made
    for made in (
        Format(INT8, 8, capability=(7, 5), processor=True),
        Format(FP8, 8, capability=(8, 9)),
        Format(
            MXFP8, 8, block=32, scale_bytes=1, multiple=32, scale_rows=128, scale_columns=4,
            capability=(10, 0),
        ),
        Format(
            NVFP4, 4, block=16, scale_bytes=1, multiple=16, scale_rows=128, scale_columns=4,
            capability=(10, 0),
        ),
    )
}  # fmt: skip

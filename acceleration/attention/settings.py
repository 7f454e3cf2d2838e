"""What an Attention Backend node was asked to do."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import AccelerationError
from .registry import BACKENDS, CHOICES, DEFAULT, FORMER, available_backends

ON_UNSUPPORTED = ("fallback", "error")
KINDS = ("all", "self", "cross")


@dataclass(frozen=True)
class AttentionSettings:
    """Validated settings of one Attention Backend node.

    ``first_block`` and ``last_block`` count as the host does, within one list of blocks; -1 is the
    last one. ``attention_kind`` tells self from cross attention by the number of tokens: an
    attention whose keys are as many as its queries counts as self attention. ``backend`` may be a
    choice of older versions, too; what counts is ``kernel``.

    Raises
    ------
    AccelerationError
        With one sentence that names the field, its value, the limit and the way out.
    """

    backend: str = "auto"
    on_unsupported: str = "fallback"
    start_percent: float = 0.0
    end_percent: float = 1.0
    first_block: int = 0
    last_block: int = -1
    attention_kind: str = "all"
    allow_low_precision: bool = False

    def __post_init__(self) -> None:
        for name, value, allowed in (
            ("backend", self.kernel, CHOICES),
            ("on_unsupported", self.on_unsupported, ON_UNSUPPORTED),
            ("attention_kind", self.attention_kind, KINDS),
        ):
            if value not in allowed:
                raise AccelerationError(f"{name} is {value!r}: choose one of {', '.join(allowed)}.")
        if not 0.0 <= self.start_percent < self.end_percent <= 1.0:
            raise AccelerationError(
                f"start_percent is {self.start_percent:g} and end_percent {self.end_percent:g}: "
                "start must be below end, and both between 0 and 1."
            )
        if self.first_block < 0 or (self.last_block != -1 and self.last_block < self.first_block):
            raise AccelerationError(
                f"first_block is {self.first_block} and last_block {self.last_block}: first_block "
                "must be 0 or more, last_block not below it, or -1 for the last block."
            )

    @property
    def kernel(self) -> str:
        """The choice, under its name of today."""
        return FORMER.get(self.backend, self.backend)

    @property
    def whole_range(self) -> bool:
        """Whether every step is meant."""
        return self.start_percent == 0.0 and self.end_percent == 1.0

    @property
    def all_blocks(self) -> bool:
        """Whether every block is meant."""
        return self.first_block == 0 and self.last_block == -1

    def require_installed(self) -> None:
        """Raise AccelerationError when the package of the chosen backend is not installed."""
        if self.kernel in ("auto", DEFAULT):
            return
        found = next(a for a in available_backends() if a.name == self.kernel)
        if not found.available:
            raise AccelerationError(
                f"backend is {self.backend!r}: {BACKENDS[self.kernel].title} {found.reason}; or "
                "choose auto, which takes the fastest one that is there."
            )

"""What an Attention Backend node was asked to do."""

from __future__ import annotations

import math
from dataclasses import dataclass

from ..errors import AccelerationError
from ..setting import Checked, check_window, require, setting
from .registry import BACKENDS, CHOICES, DEFAULT, FORMER, available_backends


@dataclass(frozen=True)
class AttentionSettings(Checked):
    """What one Attention Backend node was asked to do.

    Blocks count as the host does, within one list of blocks. ``attention_kind`` tells self from
    cross attention by the number of tokens: an attention whose keys are as many as its queries
    counts as self attention. ``backend`` may be a choice of older versions, too; what counts is
    ``kernel``.
    """

    backend: str = setting(
        "auto",
        "Which kernel computes attention. auto is right unless you want to compare, or sage's "
        "speed for some fidelity.",
        choices=CHOICES,
        former=tuple(FORMER),
    )
    on_unsupported: str = setting(
        "fallback",
        "What happens to a call that the kernel cannot take, because of its mask, head size or "
        "dtype. fallback: another kernel takes it, and the report says why. error: the run stops "
        "with the reason. Leave fallback unless you measure.",
        choices=("fallback", "error"),
    )
    start_percent: float = setting(
        0.0,
        "The kernel acts from this part of the noise range on; before it the model runs as without "
        "this node. Raise it to keep the composition exact under sage3.",
        lowest=0.0,
        highest=1.0,
        step=0.01,
    )
    end_percent: float = setting(
        1.0,
        "The kernel acts up to this part of the noise range. Lower it to keep fine detail exact "
        "under sage3.",
        lowest=0.0,
        highest=1.0,
        step=0.01,
    )
    first_block: int = setting(
        0,
        "The first block in which the kernel acts, counted from 0 within each list of blocks. "
        "Raise it to keep early blocks exact; leave 0 for exact kernels.",
        lowest=0,
        highest=1000,
        most=math.inf,
        advanced=True,
    )
    last_block: int = setting(
        -1,
        "The last block in which the kernel acts; -1 is the last there is. Lower it to keep late "
        "blocks exact; leave -1 for exact kernels.",
        lowest=-1,
        highest=1000,
        most=math.inf,
        advanced=True,
    )
    attention_kind: str = setting(
        "all",
        "self: only where as many keys as queries come, the image among itself. cross: only where "
        "their numbers differ, as with the prompt. Self attention is where the time goes; leave "
        "all unless a quantizing kernel hurts prompt following.",
        choices=("all", "self", "cross"),
        advanced=True,
    )
    allow_low_precision: bool = setting(
        False,
        "Lets auto choose among the quantizing sage kernels as well. Faster on many GPUs, and the "
        "picture changes slightly. Leave it off for exact output.",
        advanced=True,
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        check_window(self.start_percent, self.end_percent)
        require(
            self.first_block >= 0
            and (self.last_block == -1 or self.last_block >= self.first_block),
            f"first_block is {self.first_block} and last_block {self.last_block}: first_block "
            "must be 0 or more, last_block not below it, or -1 for the last block.",
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

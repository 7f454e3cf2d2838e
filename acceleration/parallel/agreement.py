"""Ranks decide together: what is looked at is added up over them, and one that cannot, holds all.

Every rank asks the same in the same order. A rank that decided alone would leave the others waiting
at the next exchange.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch

from .group import Group


class Together:
    """Decides for a group, which may change; see ``signals.Alone`` for a run of one."""

    alone = False

    def __init__(self, group: Group, device: torch.device) -> None:
        self.group, self._device = group, device
        self.team = group
        """Those of the group that share rows with this rank."""

    def changes(self, pairs: Sequence[tuple[torch.Tensor, torch.Tensor]]) -> list[float]:
        """Relative changes of whole signals, of which every rank has its tokens."""
        if not pairs:
            return []
        sums = [
            ((now - before).float().abs().sum(), before.float().abs().sum())
            for now, before in pairs
        ]
        both = torch.stack([torch.stack(each) for each in sums]).double()
        difference, size = self.group.total(both).unbind(1)
        found: list[float] = (difference / size).tolist()
        return found

    def summed(self, products: torch.Tensor) -> torch.Tensor:
        """Inner products of this rank's tokens as those of all tokens of its rows."""
        return self.team.total(products.contiguous())

    def agree(self, ready: bool) -> bool:
        """Whether every rank is ready."""
        hindered = torch.tensor([0.0 if ready else 1.0], device=self._device)
        return self.group.total(hindered).item() == 0.0

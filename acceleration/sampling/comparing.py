"""How the signals of an evaluation differ from those that branches have shown."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from ..signals import Pair, Peers


class Shown(Protocol):
    """What a branch has shown before."""

    @property
    def track(self) -> torch.Tensor | None: ...
    @property
    def last(self) -> torch.Tensor | None: ...
    @property
    def computed(self) -> torch.Tensor | None: ...


@dataclass(frozen=True)
class Changes:
    """Relative changes of the signals against those of one branch.

    nan where they are no number; infinite, or None, where shapes do not fit.
    """

    track: float
    last: float | None
    computed: float | None


def compare(
    branches: Sequence[Shown], track: torch.Tensor, signal: torch.Tensor, peers: Peers
) -> list[Changes]:
    """Compare with every branch, in one reading. Comparisons of the same two count once."""
    asked: dict[tuple[int, int], Pair] = {}

    def ask(now: torch.Tensor, before: torch.Tensor | None) -> tuple[int, int] | None:
        if before is None or before.shape != now.shape or before.device != now.device:
            return None
        pair = (id(now), id(before))
        asked[pair] = (now, before)
        return pair

    wanted = [(ask(track, b.track), ask(signal, b.last), ask(signal, b.computed)) for b in branches]
    numbers = [n if math.isfinite(n) else math.nan for n in peers.changes(list(asked.values()))]
    values: dict[tuple[int, int] | None, float] = dict(zip(asked, numbers, strict=True))
    return [Changes(values.get(t, math.inf), values.get(s), values.get(c)) for t, s, c in wanted]

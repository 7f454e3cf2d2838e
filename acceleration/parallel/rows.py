"""Which ranks take which rows of a batch, and what of a network's arguments is one entry a row.

The host evaluates conds and pictures as rows of one batch. Rows need nothing of each other, so
ranks that have rows of their own exchange nothing; ranks that share rows share their tokens.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from .layout import shares


@dataclass(frozen=True)
class Plan:
    """Who does what in an evaluation of a batch.

    ``teams`` are the ranks that share rows, ``rows`` the numbers of rows of each team.
    """

    teams: tuple[tuple[int, ...], ...]
    rows: tuple[int, ...]

    def team_of(self, rank: int) -> int | None:
        """Number of the team of a rank; None where it has nothing to do."""
        return next((n for n, team in enumerate(self.teams) if rank in team), None)

    def span(self, team: int) -> tuple[int, int]:
        """First row of a team and the one behind its last."""
        begin = sum(self.rows[:team])
        return begin, begin + self.rows[team]

    @property
    def members(self) -> tuple[int, ...]:
        """Every rank that takes part."""
        return tuple(rank for team in self.teams for rank in team)

    @property
    def splits_tokens(self) -> bool:
        """Whether some ranks share rows."""
        return any(len(team) > 1 for team in self.teams)


def plan(split: str, ranks: int, rows: int, conds: int, whole_tokens: bool = False) -> Plan:
    """Who takes which rows.

    Parameters
    ----------
    split
        ``sequence``: all ranks share every row's tokens. ``batch``: rows only. ``cfg``: conds
        only. ``auto``: as many equal teams as rows and ranks allow, and tokens within a team.
    conds
        How many conds the rows belong to, each with as many.
    whole_tokens
        Whether tokens cannot be split; rows are then dealt out as with ``batch``.
    """
    if whole_tokens and split in ("auto", "sequence"):
        split = "batch"
    if split == "sequence":
        return Plan((tuple(range(ranks)),), (rows,))
    if split == "auto":
        teams = math.gcd(ranks, rows)
        size = ranks // teams
        members = tuple(tuple(range(t * size, (t + 1) * size)) for t in range(teams))
        return Plan(members, (rows // teams,) * teams)
    units = conds if split == "cfg" and conds and rows % conds == 0 else rows
    each = [n * (rows // units) for n in shares(units, ranks)]
    taking = [(rank, n) for rank, n in enumerate(each) if n]
    return Plan(tuple((rank,) for rank, _ in taking), tuple(n for _, n in taking))


def cut_rows(value: Any, rows: int, begin: int, end: int) -> Any:
    """Rows ``[begin, end)`` of everything in a value that has one entry a row.

    The host puts rows first; a tensor with one row is for all.

    Raises
    ------
    ValueError
        For a tensor with another number of rows, of which nobody knows whose they are.
    """
    if isinstance(value, torch.Tensor):
        if value.ndim == 0 or value.shape[0] == 1:
            return value
        if value.shape[0] != rows:
            raise ValueError(f"a tensor of shape {tuple(value.shape)} beside {rows} rows")
        return value[begin:end]
    if isinstance(value, Mapping):
        return {name: cut_rows(one, rows, begin, end) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(cut_rows(one, rows, begin, end) for one in value)
    return value

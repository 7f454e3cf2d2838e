"""What evaluations cost in a run that skips some, known before it begins.

Measured by family and kind of device where that was done, else counted from the parameters: never
timed in the run, so that a run can be repeated.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from ..families import Structure

FIRST_BLOCKS = 1
"""How many blocks always run where evaluations are planned."""

PER_PROMPT = ("time", "t_embed", "guidance", "vector", "y_embed", "text", "txt", "context", "cap_")
"""In names of modules outside the blocks: they work on a prompt or a time, a few tokens at most."""

UNCOUNTED = 0.045
"""What a skipped evaluation costs beside its parameters, where nothing was measured: forecast,
decision, sampler. The least of three models of real size on a GPU, 0.047 of FLUX.1-dev
(``benchmarks/results/full_size.json``; forecasts read more then)."""

COUNTED = "by its parameters"


@dataclass(frozen=True)
class Cost:
    """What evaluations cost, as shares of one of a run that skips none.

    Parameters
    ----------
    computed
        A computed one; above 1 by what is remembered in it.
    skipped
        A skipped one: first block, what is outside the blocks, forecast.
    source
        How it is known, for the report.
    """

    computed: float
    skipped: float
    source: str = COUNTED

    def share(self, speedup: float) -> float:
        """Share of the evaluations to compute, so that the run is ``speedup`` times faster.

        0 when not even skipping everything would do.
        """
        if speedup <= 1.0 or self.skipped >= self.computed:
            return 1.0
        found = (1.0 / speedup - self.skipped) / (self.computed - self.skipped)
        return min(max(found, 0.0), 1.0)

    def speedup(self, share: float) -> float:
        """How many times faster a run is that computes a share of the evaluations."""
        return 1.0 / (self.computed * share + self.skipped * (1.0 - share)) if share < 1.0 else 1.0

    @classmethod
    def usual(cls, parameters: float) -> Cost:
        """Where nothing was measured: the share of the parameters that a skipped one uses."""
        return cls(1.0, min(parameters + UNCOUNTED, 1.0))


@dataclass(frozen=True)
class Measured:
    """Costs of one model: the mean of three runs of ``benchmarks/costs.py``."""

    family: str
    device: str
    parameters: float
    costs: tuple[tuple[float, float], ...]
    """What a computed and a skipped one cost without guidance (a row with cfg 1), and with it."""

    def fits(self, family: str, device: str, parameters: float) -> bool:
        """Whether they hold for a model. One of another size spends other shares of its time."""
        alike = self.parameters / SIZE_RANGE <= parameters <= self.parameters * SIZE_RANGE
        return (self.family, self.device) == (family, device) and alike


SIZE_RANGE = 10.0
"""So many times larger or smaller a model may be than the one that was measured."""

MEASURED = (
    Measured("FLUX", "cpu", 4.5e6, ((1.046, 0.193), (1.033, 0.166))),
    Measured("Wan", "cpu", 3.5e6, ((1.058, 0.219), (1.047, 0.183))),
)
"""Of pictures as large as the demos make, on one thread; larger ones skip a little cheaper. No
check model: plans for these are reported as they are for a model that nobody measured. No GPU yet:
what ``benchmarks/full_size.py`` found there is older than the forecasts of today."""


def cost_of(structure: Structure, network: Any, device: str, branches: int) -> Cost:
    """What evaluations of a network cost on a kind of device, such as ``"cuda"``, in a run of so
    many branches."""
    family, size = structure.family.name, sum(p.numel() for p in network.parameters())
    for known in MEASURED:
        if known.fits(family, device, size):
            computed, skipped = known.costs[min(branches, len(known.costs)) - 1]
            return Cost(computed, skipped, f"measured on {family}")
    return Cost.usual(counted(structure, network))


def counted(structure: Structure, network: Any) -> float:
    """The share of the parameters that a skipped evaluation uses on every token: those of the first
    block and of what is outside the blocks."""
    blocks = [block for _, block in structure.blocks(network)]
    size = [sum(p.numel() for p in block.parameters()) for block in blocks]
    inside = {id(p) for block in blocks for p in block.parameters()}
    outside = sum(
        p.numel()
        for name, p in network.named_parameters()
        if id(p) not in inside and not any(part in name for part in PER_PROMPT)
    )
    total = sum(size) + outside
    return 1.0 - sum(size[FIRST_BLOCKS:]) / total if total else 0.0

"""At which noise the latent becomes larger."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..schedule import Stage
from .corner import packed_size
from .spectrum import PowerLaw

LEAST_SIDE = 8
"""Values a side that a coarse latent must have, unpacked: 64 pixels with most autoencoders."""


@dataclass(frozen=True)
class Switches:
    """The coarse sizes of a run, and how long each is used.

    Parameters
    ----------
    sizes
        Height and width by level, the full size first; each further level is half as large.
    shares
        For every level but the first: the share of noise above which it is used, rising.
    why
        How the last switch, to the full size, was found.
    """

    sizes: tuple[tuple[int, int], ...]
    shares: tuple[float, ...]
    why: str

    def level(self, share: float) -> int:
        """The level at a share of noise, 0 for the full size."""
        return sum(share > switch for switch in self.shares)

    def named(self, level: int) -> str:
        """The size of a level for people, ``"64 x 64"``."""
        height, width = self.sizes[level]
        return f"{height} x {width}"

    def gain(self, shares: Sequence[float]) -> float:
        """How many times faster a schedule is than all at full size, by the sizes of its latents.

        ``shares`` are those of its steps. Counted, not timed, so that a run can be repeated.
        """
        areas = [height * width for height, width in self.sizes]
        costs = [areas[self.level(share)] / areas[0] for share in shares]
        return len(costs) / sum(costs) if costs else 1.0

    def stages(self, shares: Sequence[float]) -> dict[int, Stage]:
        """Stages of a schedule by level; ``shares`` are those of its steps.

        A level at which no step begins is met within one, where a solver looks between two steps:
        that is its stage.
        """
        levels = [self.level(share) for share in shares]
        found = {}
        for level in range(len(self.sizes)):
            steps = [step for step, at in enumerate(levels) if at == level]
            within = max(sum(at > level for at in levels) - 1, 0)
            found[level] = Stage(self.named(level), tuple(steps or [within]), level == 0)
        return found


def switches(
    size: tuple[int, int],
    levels: int,
    packing: int,
    law: PowerLaw,
    share: float | None,
    delta: float,
) -> Switches:
    """The sizes of a run, and the noise at which each begins.

    Parameters
    ----------
    size
        Height and width of the latent.
    levels
        How often it is halved at most; a side stays at least ``LEAST_SIDE`` long.
    packing
        See ``Corner``.
    law
        How strong pictures are at the highest frequency that a coarse latent holds.
    share
        The share of noise at which the full size begins; the coarser levels are left when as much
        of theirs can be known. None goes by ``delta``.
    """
    sizes = [size]
    for level in range(1, levels + 1):
        coarse = packed_size(size, level, packing)
        if min(coarse) * packing < LEAST_SIDE or coarse == sizes[-1]:
            break
        sizes.append(coarse)
    highest = [min(coarse) * packing / 2 for coarse in sizes[1:]]
    why = f"delta {delta:g}"
    if share is not None and highest:
        delta, why = law.delta_of(highest[0], share), f"set to {share:g}"
    shares = [law.begins(frequency, delta) for frequency in highest]
    if share is not None and shares:
        shares[0] = share
    return Switches(tuple(sizes), tuple(shares), why)


def choose(found: Switches, shares: Sequence[float], ends: bool, min_full: int) -> Switches:
    """Switches that leave a schedule its last steps at full size.

    Parameters
    ----------
    shares
        Of noise, of every step of the schedule.
    ends
        Whether the schedule ends without noise; else another run goes on from there, and the last
        steps are its.
    min_full
        How many steps at least.
    """
    if not ends or not min_full or not found.shares:
        return found
    first = shares[max(len(shares) - min_full, 0)] if shares else 1.0
    if found.shares[0] >= first:
        return found
    raised = tuple(max(share, first) for share in found.shares)
    return Switches(found.sizes, raised, f"{found.why}, earlier for min_full_steps {min_full}")

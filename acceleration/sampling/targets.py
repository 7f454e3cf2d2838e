"""The networks of a sampling run, and how each is going to be skipped."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from ..errors import AccelerationError
from ..families import Structure, Tap, describe
from ..families.base import LatentPart
from ..policies.base import RunInfo, Technique
from ..report import RunReport
from ..schedule import Schedule
from .branches import Memory
from .passes import BlockPlan, TapPoint
from .probing import probe


@dataclass(frozen=True)
class Target:
    """One network of the run, and how it is going to be skipped. ``plan`` None runs it plainly."""

    info: RunInfo | None = None
    plan: BlockPlan | None = None
    tap: Tap | None = None
    watches: bool = False

    def tap_point(self, network: Any) -> TapPoint | None:
        """Where the signal is read for a policy that needs no first block."""
        if self.tap is None or not self.tap.path or self.info is None:
            return None
        module = self.info.structure.tapped_module(network, self.tap)
        return TapPoint(self.tap, module) if module is not None else None


class Targets:
    """The networks of one run, found by looking at each when it is met.

    Parameters
    ----------
    report
        Is told what was found.
    memory
        Knows where they run.
    """

    def __init__(
        self, technique: Technique, schedule: Schedule, report: RunReport, memory: Memory
    ) -> None:
        self._technique, self._schedule, self._report = technique, schedule, report
        self._memory = memory
        self._targets: dict[int, Target] = {}

    def aim_early(self, network: Any) -> None:
        """Aim at a network before sampling, so that settings that do not fit fail now."""
        structure = describe(network)
        if structure is not None:
            self._targets[_identity(network)] = self._aim(structure, network)

    def of(self, network: Any) -> Target | None:
        """The target that a network is, None where it was not met yet."""
        return self._targets.get(_identity(network))

    def _aim(self, structure: Structure, network: Any) -> Target:
        technique, report = self._technique, self._report
        report.family, report.structure = structure.family.name, structure.source
        if structure.family.refused:
            report.notice(f"{structure.family.name} runs uncached: {structure.family.refused}")
            return Target()
        technique.check(structure)
        info = RunInfo(
            self._schedule,
            structure,
            report.sampler,
            network,
            device=self._memory.device,
            branches=self._memory.branches,
        )
        for notice in technique.notices(info):
            report.notice(notice)
        # Opened once here so that settings that do not fit fail before sampling starts.
        trial = technique.open(info)
        report.computed_cost = trial.computed_cost
        plan = BlockPlan.of(
            structure.family, structure.block_count, trial.first_blocks, trial.last_blocks
        )
        return Target(info, plan, trial.tap, trial.watches)

    def aim_late(self, network: Any, execute: Callable[[], Any]) -> tuple[Target, Any]:
        """Aim at a network that is first met in mid-run; an unknown one is probed.

        Returns the output of the evaluation as well when probing has made it.
        """
        target, output = self._aim_unknown(network, execute)
        self._targets[_identity(network)] = target
        return target, output

    def _aim_unknown(self, network: Any, execute: Callable[[], Any]) -> tuple[Target, Any]:
        structure, output = describe(network), None
        if structure is None:
            finding = probe(network, execute)
            structure, output = finding.structure, finding.output
            if structure is None:
                self._report.notice(_unknown_sentence(network, finding.reason))
                return Target(), output
        try:
            return self._aim(structure, network), output
        except AccelerationError as error:
            self._report.notice(str(error).rstrip("."))
            return Target(), output

    def parts_left(self, network: Any, count: int) -> list[bool]:
        """Which of ``count`` parts of the latent the corrector leaves alone, and says so.

        Of parts that nobody described only the first is taken to have the sampler's noise.
        """
        if count < 2:
            return []
        target = self.of(network)
        info = target.info if target is not None else None
        parts = info.structure.family.parts if info is not None else ()
        parts = parts or (LatentPart("first part"),)
        more = range(len(parts), count)
        parts = (*parts, *(LatentPart(f"part {i + 1}", own_noise=True) for i in more))
        alone = [part.name for part in parts if part.own_noise]
        if alone:
            self._report.notice(
                f"the corrector leaves {' and '.join(alone)} alone, as its noise is not the "
                "sampler's"
            )
        return [part.own_noise for part in parts[:count]]

    def close(self) -> None:
        """Let go of every network."""
        self._targets.clear()


def _identity(network: Any) -> int:
    """Identity of a network for the length of a run, through a compiled wrapper."""
    return id(getattr(network, "_orig_mod", network))


def _unknown_sentence(network: Any, reason: str) -> str:
    name = type(getattr(network, "_orig_mod", network)).__name__
    return (
        f"{name} is not a diffusion transformer this pack knows, and looking at it did not help "
        f"({reason}), so the model runs uncached"
    )

"""One sampling run: its branches, its counting, its end.

A run is opened around the host's sampling and closed in ``finally``; all state of a technique lives
in it. A *branch* is one stream of evaluations that may share residuals: same device, same conds in
the same order, same context window, same patches, same shape.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Any

import torch

from .evaluation import BlockPlan, Evaluation
from .families import Structure, describe
from .forecast import Forecast, Streams, make_forecast
from .gates import installed
from .policies import Policy, RunInfo, Technique
from .report import EvaluationRecord, RunReport
from .residual_store import ResidualStore, bytes_of
from .schedule import Schedule

# Branches that a run is expected to have, for the memory plan: positive and negative prompt.
EXPECTED_BRANCHES = 2


@dataclass(frozen=True)
class Call:
    """One call of the host's model, as far as the engine needs to know it."""

    execute: Callable[[], Any]
    """Runs the model; may be called again."""
    network: Any
    sigma: float
    key: Hashable
    """Identity of the branch."""
    label: str
    """Name of the branch for people."""
    device: torch.device


class Branch:
    """State of one stream of evaluations."""

    def __init__(self, name: str, label: str, forecast: Forecast) -> None:
        self.name = name
        self.label = label
        self.forecast = forecast
        self.position: float | None = None
        self.shape: torch.Size | None = None
        """Shape of the last computed signal."""


class SamplingRun:
    """All state of one technique during one sampling run.

    Parameters
    ----------
    technique
        The settings.
    schedule
        Sigmas of the run.
    sampler
        Name of the sampler function.
    network
        The transformer, for the checks that must fail before sampling starts.
    sigma_window
        Highest and lowest sigma between which skipping is allowed.
    free_memory
        Free bytes of a device.

    Raises
    ------
    AccelerationError
        When the settings do not fit the model or the schedule.
    """

    def __init__(
        self,
        technique: Technique,
        schedule: Schedule,
        sampler: str,
        network: Any,
        sigma_window: tuple[float, float],
        free_memory: Callable[[torch.device], int],
    ) -> None:
        self.report = RunReport(technique.name, technique.describe(), sampler=sampler)
        self.report.steps = schedule.steps
        self._technique = technique
        self._schedule = schedule
        self._window = sigma_window
        self._lock = threading.Lock()
        self._policies: dict[torch.device, Policy] = {}
        self._branches: dict[Hashable, Branch] = {}
        self._info: RunInfo | None = None
        self._plan: BlockPlan | None = None
        self._began = time.perf_counter()
        structure = describe(network)
        if structure is None:
            self.report.notice(_unknown_sentence(network))
        else:
            self._begin(structure, sampler)
        kept = make_forecast(
            technique.calibrator, technique.taylorseer_order, ResidualStore("gpu", free_memory, 0)
        ).tensors_kept
        self._store = ResidualStore(
            technique.residual_device, free_memory, (kept + 1) * EXPECTED_BRANCHES
        )

    def _begin(self, structure: Structure, sampler: str) -> None:
        technique, report = self._technique, self.report
        report.family, report.structure = structure.family.name, structure.source
        if structure.family.refused:
            report.notice(f"{structure.family.name} runs uncached: {structure.family.refused}")
            return
        technique.check(structure)
        self._info = RunInfo(self._schedule, structure, sampler)
        for notice in technique.notices(self._info):
            report.notice(notice)
        # Opened once here so that settings that do not fit fail before sampling starts.
        probe = technique.open(self._info)
        self._plan = BlockPlan.of(
            structure.family, structure.block_count, probe.first_blocks, probe.last_blocks
        )
        probe.close()

    # ---------------------------------------------------------------- one evaluation

    def evaluate(self, call: Call) -> Any:
        """Run one evaluation of the model, skipping blocks where the policy says so."""
        began = time.perf_counter()
        branch, position = self._locate(call)
        step = self._schedule.step_of(position)
        outside = self._outside_window(call.sigma)
        if self._plan is None or self._info is None or outside == "after end_percent":
            output = call.execute()
            skipped, reason, diff = False, outside or "not accelerated", None
        else:
            output, (skipped, reason, diff) = self._gated(call, branch, position, step, outside)
        seconds = time.perf_counter() - began
        self.report.evaluations.append(
            EvaluationRecord(
                step, position, call.sigma, branch.label, skipped, reason, diff, seconds
            )
        )
        return output

    def _gated(
        self, call: Call, branch: Branch, position: float, step: int, outside: str | None
    ) -> tuple[Any, tuple[bool, str, float | None]]:
        assert self._info is not None and self._plan is not None
        policy = self._policy(call.device)
        outcome: list[tuple[str, float | None]] = []

        def decide(signal: torch.Tensor) -> Streams | None:
            blocked = outside or self._blocked(branch, evaluation, signal)
            decision = policy.decide(branch.name, step, signal, blocked)
            outcome.append((decision.reason, decision.diff))
            return branch.forecast.predict(position, signal) if decision.reuse else None

        evaluation = Evaluation(self._plan, decide)
        with installed(evaluation.gates_for(self._info.structure.blocks(call.network))):
            output = call.execute()
        if evaluation.lost:
            return self._recompute(call)
        reason, diff = outcome[0] if outcome else ("first blocks not called", None)
        if evaluation.skipped:
            return output, (True, reason, diff)
        if evaluation.signal is not None and evaluation.residual is not None:
            branch.shape = evaluation.signal.shape
            policy.computed(branch.name, step, evaluation.signal)
            branch.forecast.update(position, evaluation.residual, evaluation.signal)
            self._note_memory()
        else:
            self.report.notice(
                "another patch replaces blocks of this model, so some evaluations could not be "
                "recorded and were computed"
            )
        return output, (False, reason, diff)

    def _blocked(self, branch: Branch, evaluation: Evaluation, signal: torch.Tensor) -> str | None:
        if evaluation.must_run:
            return "this model must run here"
        if branch.shape is not None and branch.shape != signal.shape:
            # Some models change their number of tokens in mid-run; an old residual does not fit.
            branch.forecast = self._new_forecast()
        return None if branch.forecast.ready else "no residual yet"

    def _recompute(self, call: Call) -> tuple[Any, tuple[bool, str, float | None]]:
        """Compute plainly: the last gate was not reached after a skip, so the output is wrong."""
        self._plan = None
        self.report.notice(
            "another patch replaces the last block of this model, so caching was switched off for "
            "this run"
        )
        return call.execute(), (False, "last block not called", None)

    # ---------------------------------------------------------------- bookkeeping

    def _locate(self, call: Call) -> tuple[Branch, float]:
        with self._lock:
            branch = self._branches.get(call.key)
            if branch is None:
                name = f"branch-{len(self._branches)}"
                branch = Branch(name, call.label, self._new_forecast())
                self._branches[call.key] = branch
            position = self._schedule.locate(call.sigma, branch.position)
            branch.position = position
            return branch, position

    def _new_forecast(self) -> Forecast:
        technique = self._technique
        return make_forecast(technique.calibrator, technique.taylorseer_order, self._store)

    def _policy(self, device: torch.device) -> Policy:
        assert self._info is not None
        with self._lock:
            if device not in self._policies:
                self._policies[device] = self._technique.open(self._info)
            return self._policies[device]

    def _outside_window(self, sigma: float) -> str | None:
        highest, lowest = self._window
        if sigma > highest:
            return "before start_percent"
        return "after end_percent" if sigma < lowest else None

    def _note_memory(self) -> None:
        with self._lock:
            held = [t for branch in self._branches.values() for t in branch.forecast.tensors()]
            for policy in self._policies.values():
                held += policy.tensors()
            self._store.note_bytes(bytes_of(held))

    def close(self, finished: bool) -> RunReport:
        """Free everything and return the finished report."""
        report = self.report
        report.seconds = time.perf_counter() - self._began
        report.outcome = "finished" if finished else "interrupted"
        report.residual_placement = self._store.placement
        report.residual_peak_bytes = self._store.peak_bytes
        share = report.skipped / max(len(report.evaluations), 1)
        if share < 0.15:
            reasons = [policy.explain(report) for policy in self._policies.values()]
            report.explanation = next((reason for reason in reasons if reason), "")
        for policy in self._policies.values():
            policy.close()
        self._policies.clear()
        self._branches.clear()
        return report


def _unknown_sentence(network: Any) -> str:
    return (
        f"{type(network).__name__} is not a diffusion transformer this pack knows, so the model "
        "runs uncached"
    )

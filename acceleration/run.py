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

from .errors import AccelerationError
from .evaluation import BlockPlan, Evaluation, TapPoint
from .families import Structure, Tap, describe
from .forecast import Forecast, Streams, make_forecast
from .gates import installed
from .live import Guarded, Listener
from .policies import Decision, Policy, RunInfo, Technique
from .probing import probe
from .report import EvaluationRecord, RunReport
from .residual_store import ResidualStore, bytes_of
from .schedule import Schedule
from .timing import Mark, Span, unmarked

# Branches that a run is expected to have, for the memory plan: positive and negative prompt.
EXPECTED_BRANCHES = 2

# Below this share of skipped evaluations the report says why there are not more.
WORTH_EXPLAINING = 0.4


@dataclass(frozen=True)
class Call:
    """One call of the host's model, as far as the engine needs to know it."""

    execute: Callable[[], Any]
    """Runs the model; may be called again."""
    network: Any
    sigma: torch.Tensor
    """Current sigma, ``[B]``."""
    key: Hashable
    """Identity of the branch."""
    label: str
    """Name of the branch for people."""
    device: torch.device
    mark: Mark = unmarked
    """Shows parts of our own work to a profiler."""


@dataclass
class Branch:
    """State of one stream of evaluations."""

    name: str
    label: str
    forecast: Forecast
    policy: Policy | None = None
    position: float | None = None
    shape: torch.Size | None = None
    """Shape of the hidden state at the last computed evaluation."""


@dataclass(frozen=True)
class Target:
    """One network of the run, and how it is going to be skipped. ``plan`` None runs it plainly."""

    info: RunInfo | None = None
    plan: BlockPlan | None = None
    tap: Tap | None = None


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
    listener
        Is told of every evaluation and of the end.

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
        listener: Listener | None = None,
    ) -> None:
        self._listener = Guarded(listener)
        self.report = RunReport(technique.name, technique.describe(), sampler=sampler)
        self.report.steps = schedule.steps
        self._technique = technique
        self._schedule = schedule
        self._window = sigma_window
        self._lock = threading.RLock()
        self._policies: dict[Hashable, Policy] = {}
        self._branches: dict[Hashable, Branch] = {}
        self._targets: dict[int, Target] = {}
        self._spans: list[tuple[EvaluationRecord, Span]] = []
        self._sigma: tuple[Any, float] = (None, 0.0)
        self._began: float | None = None
        self._blocked_for_run: str | None = None
        kept = make_forecast(
            technique.calibrator, technique.taylorseer_order, ResidualStore("gpu", free_memory, 0)
        ).tensors_kept
        self._store = ResidualStore(
            technique.residual_device, free_memory, (kept + 1) * EXPECTED_BRANCHES
        )
        structure = describe(network)
        if structure is not None:
            self._targets[_identity(network)] = self._aim(structure, network)

    def __deepcopy__(self, memo: dict[int, Any]) -> SamplingRun:
        # The run travels in transformer_options, which other packs copy.
        return self

    def run_plainly(self, sentence: str) -> None:
        """Skip nothing in this run, and say why."""
        self._blocked_for_run = sentence
        self.report.notice(sentence)

    # ---------------------------------------------------------------- networks

    def _aim(self, structure: Structure, network: Any) -> Target:
        technique, report = self._technique, self.report
        report.family, report.structure = structure.family.name, structure.source
        if structure.family.refused:
            report.notice(f"{structure.family.name} runs uncached: {structure.family.refused}")
            return Target()
        technique.check(structure)
        info = RunInfo(self._schedule, structure, report.sampler, network)
        for notice in technique.notices(info):
            report.notice(notice)
        # Opened once here so that settings that do not fit fail before sampling starts.
        trial = technique.open(info)
        trial.close()
        plan = BlockPlan.of(
            structure.family, structure.block_count, trial.first_blocks, trial.last_blocks
        )
        return Target(info, plan, trial.tap)

    def _aim_late(self, call: Call) -> tuple[Target, Any]:
        """Aim at a network that is first met in mid-run; an unknown one is probed.

        Returns the output of the evaluation as well when probing has made it.
        """
        structure, output = describe(call.network), None
        if structure is None:
            finding = probe(call.network, call.execute)
            structure, output = finding.structure, finding.output
            if structure is None:
                self.report.notice(_unknown_sentence(call.network, finding.reason))
                return Target(), output
        try:
            return self._aim(structure, call.network), output
        except AccelerationError as error:
            self.report.notice(str(error).rstrip("."))
            return Target(), output

    # ---------------------------------------------------------------- one evaluation

    def evaluate(self, call: Call) -> Any:
        """Run one evaluation of the model, skipping blocks where the policy says so."""
        if self._began is None:
            self._began = time.perf_counter()
        span = Span(call.device)
        sigma = self._read_sigma(call.sigma)
        branch, position = self._locate(call, sigma)
        step = self._schedule.step_of(position)
        output, outcome = self._run(call, branch, position, step, sigma)
        record = EvaluationRecord(
            step,
            position,
            sigma,
            branch.label,
            skipped=outcome.reuse,
            reason=outcome.reason,
            diff=outcome.diff,
            seconds=0.0,
            forecast=outcome.reuse and branch.forecast.extrapolates,
            threshold=outcome.threshold,
            accumulated=outcome.accumulated,
        )
        with self._lock:
            self.report.evaluations.append(record)
            self._spans.append((record, span.stop()))
            self._listener.evaluated(record, self._look)
        return output

    def _run(
        self, call: Call, branch: Branch, position: float, step: int, sigma: float
    ) -> tuple[Any, Decision]:
        if self._blocked_for_run is not None or torch.is_grad_enabled():
            return call.execute(), Decision(False, "not accelerated")
        target = self._targets.get(_identity(call.network))
        if target is None:
            target, output = self._aim_late(call)
            self._targets[_identity(call.network)] = target
            if output is not None:
                return output, Decision(False, "looked for the structure")
        outside = self._outside_window(sigma)
        if target.plan is None or target.info is None or outside == "after end_percent":
            return call.execute(), Decision(False, outside or "not accelerated")
        return self._gated(call, target, branch, position, step, outside)

    def _gated(
        self,
        call: Call,
        target: Target,
        branch: Branch,
        position: float,
        step: int,
        outside: str | None,
    ) -> tuple[Any, Decision]:
        assert target.info is not None and target.plan is not None
        policy = branch.policy = self._policy(call, target.info)
        decisions: list[Decision] = []

        def decide(signal: torch.Tensor, shape: torch.Size, must_run: bool) -> Streams | None:
            with call.mark("decision"):
                blocked = outside or self._blocked(branch, shape, must_run)
                decision = policy.decide(branch.name, step, signal, blocked)
                decisions.append(decision)
                return branch.forecast.predict(position, signal) if decision.reuse else None

        evaluation = Evaluation(target.plan, decide, _tap_point(target, call.network))
        structure = target.info.structure
        idle = structure.idle_blocks(call.network, target.plan.last)
        with installed(evaluation.gates_for(structure.blocks(call.network), idle)):
            output = call.execute()
        if evaluation.lost:
            return self._recompute(call)
        decision = decisions[0] if decisions else Decision(False, "first blocks not called")
        if not evaluation.skipped:
            with call.mark("learning"):
                self._learn(evaluation, branch, position, step)
        return output, decision

    def _learn(self, evaluation: Evaluation, branch: Branch, position: float, step: int) -> None:
        assert branch.policy is not None
        if evaluation.signal is None or evaluation.residual is None:
            self.report.notice(
                "another patch replaces blocks of this model, so some evaluations could not be "
                "recorded and were computed"
            )
            return
        branch.shape = evaluation.hidden_shape
        branch.policy.computed(branch.name, step, evaluation.signal, evaluation.output)
        branch.forecast.update(position, evaluation.residual, evaluation.signal)

    def _blocked(self, branch: Branch, shape: torch.Size, must_run: bool) -> str | None:
        if must_run:
            return "this model must run here"
        if branch.shape is not None and branch.shape != shape:
            # Some models change their number of tokens in mid-run; an old residual does not fit.
            branch.forecast = self._new_forecast()
        return None if branch.forecast.ready else "no residual yet"

    def _recompute(self, call: Call) -> tuple[Any, Decision]:
        """Compute plainly: the last gate was not reached after a skip, so the output is wrong."""
        self.run_plainly(
            "another patch replaces the last block of this model, so caching was switched off for "
            "this run"
        )
        return call.execute(), Decision(False, "last block not called")

    # ---------------------------------------------------------------- bookkeeping

    def _read_sigma(self, sigma: torch.Tensor) -> float:
        """The current sigma; evaluations of one step share a tensor, so one wait is enough."""
        if self._sigma[0] is not sigma:
            self._sigma = (sigma, float(sigma.flatten()[0]))
        return self._sigma[1]

    def _locate(self, call: Call, sigma: float) -> tuple[Branch, float]:
        with self._lock:
            branch = self._branches.get(call.key)
            if branch is None:
                name = f"branch-{len(self.report.evaluations)}-{len(self._branches)}"
                branch = Branch(name, call.label, self._new_forecast())
                self._branches[call.key] = branch
            position = branch.position = self._schedule.locate(sigma, branch.position)
            self._drop_abandoned(position)
            return branch, position

    def _drop_abandoned(self, position: float) -> None:
        """Forget branches whose residual is too old to be used, such as windows that moved on."""
        old = [
            key
            for key, branch in self._branches.items()
            if branch.policy is not None
            and branch.position is not None
            and position - branch.position > branch.policy.max_age + 1
        ]
        if old:
            self._note_memory()
        for key in old:
            branch = self._branches.pop(key)
            assert branch.policy is not None
            branch.policy.forget(branch.name)

    def _new_forecast(self) -> Forecast:
        technique = self._technique
        return make_forecast(technique.calibrator, technique.taylorseer_order, self._store)

    def _policy(self, call: Call, info: RunInfo) -> Policy:
        key = (call.device, _identity(call.network))
        with self._lock:
            if key not in self._policies:
                self._policies[key] = self._technique.open(info)
            return self._policies[key]

    def _outside_window(self, sigma: float) -> str | None:
        highest, lowest = self._window
        if sigma > highest:
            return "before start_percent"
        return "after end_percent" if sigma < lowest else None

    def _note_memory(self) -> None:
        # What is held grows until a branch is dropped: looking then and at the end is enough.
        with self._lock:
            held = [t for b in list(self._branches.values()) for t in b.forecast.tensors()]
            for policy in self._policies.values():
                held += policy.tensors()
            self._store.note_bytes(bytes_of(held))

    def _look(self) -> RunReport:
        """The report with the times that are known by now, for the listener."""
        report = self.report
        for record, span in self._spans:
            record.seconds = record.seconds or span.seconds_if_over() or 0.0
        if self._began is not None:
            report.seconds = time.perf_counter() - self._began
        self._note_memory()
        self._tell_memory()
        return report

    def _tell_memory(self) -> None:
        self.report.residual_placement = self._store.placement
        self.report.residual_peak_bytes = self._store.peak_bytes

    def close(self, finished: bool) -> RunReport:
        """Free everything and return the finished report."""
        report = self.report
        for record, span in self._spans:
            record.seconds = span.seconds()
        self._spans.clear()
        if self._began is not None:
            report.seconds = time.perf_counter() - self._began
        report.outcome = "finished" if finished else "interrupted"
        self._note_memory()
        self._tell_memory()
        if report.skipped < WORTH_EXPLAINING * max(len(report.evaluations), 1):
            reasons = [policy.explain(report) for policy in self._policies.values()]
            report.explanation = next((reason for reason in reasons if reason), "")
        for policy in self._policies.values():
            policy.close()
        for held in (self._policies, self._branches, self._targets):
            held.clear()
        self._sigma = (None, 0.0)
        self._listener.ended(report)
        return report


def _identity(network: Any) -> int:
    """Identity of a network for the length of a run, through a compiled wrapper."""
    return id(getattr(network, "_orig_mod", network))


def _tap_point(target: Target, network: Any) -> TapPoint | None:
    """Where the signal is read for a policy that needs no first block."""
    if target.tap is None or not target.tap.path or target.info is None:
        return None
    module = target.info.structure.tapped_module(network, target.tap)
    return TapPoint(target.tap, module) if module is not None else None


def _unknown_sentence(network: Any, reason: str) -> str:
    name = type(getattr(network, "_orig_mod", network)).__name__
    return (
        f"{name} is not a diffusion transformer this pack knows, and looking at it did not help "
        f"({reason}), so the model runs uncached"
    )

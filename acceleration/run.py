"""One sampling run: its branches, its counting, its end.

A run is opened around the host's sampling and closed in ``finally``; all state of a technique lives
in it.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch

from .branches import Branch, Branches, Memory
from .errors import AccelerationError
from .evaluation import BlockPlan, Evaluation, Outliving, TapPoint
from .families import Structure, Tap, describe
from .forecast import Streams
from .gates import installed
from .live import Guarded, Listener
from .policies import Decision, RunInfo, Technique
from .probing import probe
from .report import EvaluationRecord, RunReport
from .schedule import Schedule, SigmaReading
from .timing import Mark, Span, unmarked

# Below this share of skipped evaluations the report says why there are not more.
WORTH_EXPLAINING = 0.4

AFTER_END = "after end_percent"

LAST_BLOCK_REPLACED = (
    "another patch replaces the last block of this model, so caching was switched off for this run"
)

CALLED_AGAIN = (
    "this model calls its blocks more than once in some evaluations, mostly to keep what they make "
    "of the prompt; these evaluations were computed and nothing of them was reused"
)


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
    conds: int = 1
    """How many prompts are evaluated in this batch."""
    obstacle: Callable[[Sequence[torch.nn.Module]], str | None] = lambda blocks: None
    """Why the host would not call gates on these blocks, or None."""
    leave_out: Callable[[Sequence[torch.nn.Module]], Any] = lambda blocks: None
    """Told of the blocks that are not going to run in this evaluation, once that is decided."""
    outliving: Outliving = nullcontext
    """The context in which tensors that outlive the evaluation are made."""


@dataclass(frozen=True)
class Target:
    """One network of the run, and how it is going to be skipped. ``plan`` None runs it plainly."""

    info: RunInfo | None = None
    plan: BlockPlan | None = None
    tap: Tap | None = None


class Place:
    """Where one evaluation of a branch lies in the schedule, found when it is first asked for."""

    def __init__(self, schedule: Schedule, reading: SigmaReading, branch: Branch) -> None:
        self._schedule, self._reading, self._branch = schedule, reading, branch

    @cached_property
    def sigma(self) -> float:
        return self._reading.value()

    @cached_property
    def position(self) -> float:
        found = self._schedule.locate(self.sigma, self._branch.position)
        self._branch.position = found
        return found

    @property
    def step(self) -> int:
        return self._schedule.step_of(self.position)


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
    memory
        What may be asked of the host's memory.
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
        memory: Memory,
        listener: Listener | None = None,
    ) -> None:
        self._listener = Guarded(listener)
        self.report = RunReport(technique.name, technique.describe(), sampler=sampler)
        self.report.steps = schedule.steps
        self._technique = technique
        self._schedule = schedule
        self._window = sigma_window
        self._lock = threading.RLock()
        self.memory = memory
        self._branches = Branches(technique, memory, sampler)
        self._targets: dict[int, Target] = {}
        self._spans: list[tuple[EvaluationRecord, Span]] = []
        self._reading: SigmaReading | None = None
        self._began: float | None = None
        self._blocked_for_run: str | None = None
        structure = describe(network)
        if structure is not None:
            self._targets[_identity(network)] = self._aim(structure, network)

    def __deepcopy__(self, memo: dict[int, Any]) -> SamplingRun:
        # The run travels in transformer_options, which other packs copy.
        return self

    @property
    def residual_device(self) -> str:
        """The input of this name, of the settings that this run goes by."""
        return self._technique.residual_device

    @property
    def expected_tensors(self) -> int:
        """About how many tensors of the hidden state's size are going to be kept."""
        return self._branches.expected_tensors

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
        branch = self._branches.find(call.key, call.label, call.device, call.conds)
        place = Place(self._schedule, self._read_sigma(call.sigma), branch)
        output, outcome = self._run(call, branch, place)
        output = self._corrected(call, branch, place, output, outcome.reuse)
        record = EvaluationRecord(
            place.step,
            place.position,
            place.sigma,
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

    def _run(self, call: Call, branch: Branch, place: Place) -> tuple[Any, Decision]:
        if self._blocked_for_run is not None:
            self._branches.free(call.device)
        if self._blocked_for_run is not None or torch.is_grad_enabled():
            return call.execute(), Decision(False, "not accelerated")
        target = self._targets.get(_identity(call.network))
        if target is None:
            target, output = self._aim_late(call)
            self._targets[_identity(call.network)] = target
            if output is not None:
                return output, Decision(False, "looked for the structure")
        if target.plan is None or target.info is None:
            return call.execute(), Decision(False, "not accelerated")
        # Only a run with an end needs its sigma now; see SigmaReading for why it waits otherwise.
        if self._window[1] > 0 and self._outside_window(place.sigma) == AFTER_END:
            return call.execute(), Decision(False, AFTER_END)
        return self._gated(call, target, branch, place)

    def _gated(
        self, call: Call, target: Target, branch: Branch, place: Place
    ) -> tuple[Any, Decision]:
        assert target.info is not None and target.plan is not None
        structure, plan = target.info.structure, target.plan
        found = structure.blocks(call.network)
        idle = structure.idle_blocks(call.network, plan.last)
        obstacle = call.obstacle([block for _, block in found])
        if obstacle is not None:
            return self._recompute(call, obstacle, "not accelerated")
        policy = self._branches.policy(branch, _identity(call.network), target.info)
        decisions: list[Decision] = []

        def decide(signal: torch.Tensor, shape: torch.Size, must_run: bool) -> Streams | None:
            with call.mark("decision"):
                self._branches.drop_abandoned(place.position)
                outside = self._outside_window(place.sigma)
                blocked = outside or self._blocked(branch, shape, must_run)
                decision = policy.decide(branch.name, place.step, signal, blocked)
                decisions.append(decision)
                if not decision.reuse:
                    return None
                residual = branch.forecast.predict(place.position, signal)
                skipped = [*found[plan.first : plan.last + 1], *idle]
                call.leave_out([block for _, block in skipped])
                return residual

        evaluation = Evaluation(
            plan, decide, _tap_point(target, call.network), call.outliving, policy.wants_output
        )
        dropped: str | None = None
        try:
            with installed(evaluation.gates_for(found, idle)):
                output = call.execute()
        except Exception as error:
            dropped = self._branches.why_dropped(error, call.device, evaluation.holds)
            if dropped is None:
                raise
        if dropped is not None:
            # Not before: the error's traceback kept the tensors of the evaluation alive.
            del evaluation
            return self._recompute(call, dropped, "out of memory")
        if evaluation.lost:
            return self._recompute(call, LAST_BLOCK_REPLACED, "last block not called")
        if evaluation.skipped and evaluation.repeated:
            del evaluation
            return self._recompute(call, CALLED_AGAIN, "blocks called again")
        if not evaluation.skipped:
            self._learn(call, evaluation, branch, place)
        decision = decisions[0] if decisions else Decision(False, "first blocks not called")
        return output, decision

    def _learn(self, call: Call, evaluation: Evaluation, branch: Branch, place: Place) -> None:
        """Remember a computed evaluation; its output is right, whatever happens here."""
        assert branch.policy is not None
        if evaluation.repeated:
            self.report.notice(CALLED_AGAIN)
            return
        if evaluation.signal is None or evaluation.residual is None:
            self.report.notice(
                "another patch replaces blocks of this model, so some evaluations could not be "
                "recorded and were computed"
            )
            return
        branch.shape = evaluation.hidden_shape
        try:
            with call.mark("learning"):
                branch.policy.computed(
                    branch.name, place.step, evaluation.signal, evaluation.output
                )
                branch.forecast.update(place.position, evaluation.residual, evaluation.signal)
        except Exception as error:
            dropped = self._branches.why_dropped(error, call.device, evaluation.holds)
            if dropped is None:
                raise
            self._stop_caching(call, dropped)

    def _corrected(
        self, call: Call, branch: Branch, place: Place, output: Any, skipped: bool
    ) -> Any:
        """The output with what earlier skipped evaluations got wrong given back."""
        corrector = branch.corrector
        if corrector is None or not isinstance(output, torch.Tensor):
            return output
        if self._blocked_for_run is not None:
            return output
        target = self._schedule.target_of(place.position)
        if target is None:
            corrector.forget()
            return output
        with call.mark("correction"):
            note = corrector.skipped if skipped else corrector.computed
            return note(place.sigma, target, output)

    def _blocked(self, branch: Branch, shape: torch.Size, must_run: bool) -> str | None:
        if must_run:
            return "this model must run here"
        if branch.shape is not None and branch.shape != shape:
            # Some models change their number of tokens in mid-run; an old residual does not fit.
            branch.forecast = self._branches.new_forecast()
        return None if branch.forecast.ready else "no residual yet"

    def _recompute(self, call: Call, sentence: str, reason: str) -> tuple[Any, Decision]:
        """Compute an evaluation plainly that went wrong, and skip nothing from now on."""
        self._stop_caching(call, sentence)
        return call.execute(), Decision(False, reason)

    def _stop_caching(self, call: Call, sentence: str) -> None:
        self.run_plainly(sentence)
        self._branches.free(call.device)

    # ---------------------------------------------------------------- bookkeeping

    def _read_sigma(self, sigma: torch.Tensor) -> SigmaReading:
        """The reading of the current sigma, which evaluations of one step share."""
        reading = self._reading
        if reading is None or reading.source is not sigma:
            reading = self._reading = SigmaReading(sigma)
        return reading

    def _outside_window(self, sigma: float) -> str | None:
        highest, lowest = self._window
        if sigma > highest:
            return "before start_percent"
        return AFTER_END if sigma < lowest else None

    def _look(self) -> RunReport:
        """The report with the times that are known by now, for the listener."""
        report = self.report
        for record, span in self._spans:
            record.seconds = record.seconds or span.seconds_if_over() or 0.0
        if self._began is not None:
            report.seconds = time.perf_counter() - self._began
        self._branches.tell_memory(report)
        return report

    def close(self, finished: bool) -> RunReport:
        """Free everything and return the finished report."""
        report = self.report
        for record, span in self._spans:
            record.seconds = span.seconds()
        self._spans.clear()
        if self._began is not None:
            report.seconds = time.perf_counter() - self._began
        report.outcome = "finished" if finished else "interrupted"
        self._branches.tell_memory(report)
        if report.skipped < WORTH_EXPLAINING * max(len(report.evaluations), 1):
            report.explanation = self._branches.explanation(report)
        self._branches.close()
        self._targets.clear()
        self._reading = None
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

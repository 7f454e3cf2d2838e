"""One sampling run: its branches, its counting, its end.

A run is opened around the host's sampling and closed in ``finally``; all state of a technique lives
in it.
"""

from __future__ import annotations

import functools
import logging
import threading
from collections import Counter
from collections.abc import Hashable
from dataclasses import replace
from typing import Any

import torch

from ..failures import FAILED, BeginAgainError, failed_sentence, is_ours, log_failure
from ..forecasts.forecast import Streams
from ..lack_of_memory import recovery
from ..policies.base import Decision, RunInfo, Technique
from ..report import RunReport
from ..schedule import Schedule, SigmaReading
from ..signals import Alone, Peers
from . import sentences as say
from .branches import NO_RESIDUAL, NOT_FINITE, Branch, Branches, Meeting, Memory
from .course import Call, Course, Model
from .evaluation import Evaluation
from .gates import installed
from .listener import Listener
from .passes import Look
from .records import Records
from .side_by_side import SideBySide
from .targets import Target, Targets

log = logging.getLogger("dit_acceleration")

# Below this share of skipped evaluations the report says why there are not more.
WORTH_EXPLAINING = 0.4


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
    peers
        Others that run parts of the same evaluations, and decide alike.

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
        peers: Peers | None = None,
    ) -> None:
        self.report = RunReport(technique.name, settings=technique.describe(), sampler=sampler)
        self.report.steps = schedule.steps
        self._technique = technique
        self._schedule = schedule
        self._window = sigma_window
        self._lock = threading.RLock()
        self.memory = memory
        self._peers = peers or Alone()
        # What ranks see is the network's output, no picture; who calls them gives back.
        named = sampler if self._peers.alone else ""
        self._branches = Branches(technique, memory, named, self._peers)
        self._records = Records(self.report, listener, self._branches.tell_memory)
        self._targets = Targets(technique, schedule, self.report, memory)
        self._reading: SigmaReading | None = None
        self._blocked_for_run: str | None = None
        self._closed = False
        self._prediction = 0
        self._predicts = False
        self._turns: Counter[Hashable] = Counter()
        self._side = SideBySide()
        self._targets.aim_early(network)

    def __deepcopy__(self, memo: dict[int, Any]) -> SamplingRun:
        # The run travels in transformer_options, which other packs copy.
        return self

    @property
    def residual_device(self) -> str:
        """The input of this name, of the settings that this run goes by."""
        return self._technique.settings.residual_device

    @property
    def expected_tensors(self) -> int:
        """About how many tensors of the hidden state's size are going to be kept."""
        return self._branches.expected_tensors

    def run_plainly(self, sentence: str) -> None:
        """Skip nothing from now on, and say why."""
        self._blocked_for_run = self._blocked_for_run or sentence
        self.report.notice(sentence)

    # ---------------------------------------------------------------- one evaluation

    def begin_prediction(self) -> None:
        """The guider begins to predict: what is evaluated until the next time belongs together."""
        self._predicts = True
        self._side.begin()
        self._next_prediction()

    def _next_prediction(self) -> None:
        with self._lock:
            self._prediction += 1
            self._turns.clear()

    def evaluate(self, call: Call) -> Any:
        """Run one evaluation of the model, skipping blocks where the policy says so.

        Whatever goes wrong in our own work drops what is remembered and computes the evaluation;
        only the model's own errors and Cancel pass.

        Raises
        ------
        BeginAgainError
            When there are peers and this evaluation must be begun again by all.
        """
        if self._closed:
            return call.execute()
        with self._side.evaluation():
            return self._evaluate(call)

    def _evaluate(self, call: Call) -> Any:
        model = Model(call.execute)
        course: Course | None = None
        try:
            self._records.begin()
            course = self._course(call)
            output = self._run(course, model)
            if self._blocked_for_run is None:
                output = course.corrected(output, self._targets.parts_left)
        except Exception as error:
            if isinstance(error, BeginAgainError) or (error is model.error and not is_ours(error)):
                raise
            self.give_up(call.device, error)
            if not model.ran and not self._peers.alone:
                raise BeginAgainError(failed_sentence(error)) from None
            output = model.output if model.ran else call.execute()
        if course is not None:
            self._record(course)
        return output

    def _course(self, call: Call) -> Course:
        with self._lock:
            self._branches.enter(call.device, call.stage)
            reading = self._read_sigma(call.sigma)
            turn = self._turns[call.key]
            self._turns[call.key] += 1
            return Course(call, turn, self._prediction, self._schedule, reading, self._branches)

    def _record(self, course: Course) -> None:
        """Write the calls of the network into the report."""
        try:
            course.end()
            course.leave()
            for record, span in course.records():
                with self._lock:
                    if not self._closed:  # A thread of the host may come back after that.
                        self._records.add(record, span)
        except Exception as error:
            self.give_up(course.call.device, error)

    def give_up(self, device: torch.device, error: Exception) -> None:
        """Skip nothing from now on, as something of ours went wrong, and say so once."""
        try:
            dropped = self._branches.why_dropped(error, device, held=True)
            if dropped is None:
                log_failure(error)
            self.run_plainly(dropped or failed_sentence(error))
            self._branches.free(device)
        except Exception as another:
            log_failure(another)
            self._blocked_for_run = self._blocked_for_run or FAILED

    def _run(self, course: Course, model: Model) -> Any:
        call = course.call
        if not self._peers.agree(self._blocked_for_run is None) and not self._blocked_for_run:
            self.run_plainly(say.PEER_GAVE_UP)
        if self._blocked_for_run is not None:
            self._branches.free(call.device)
        if torch.is_grad_enabled():
            self.report.notice(say.GRADIENTS)
        if self._blocked_for_run is not None or torch.is_grad_enabled():
            return self._plainly(course, model, say.PLAIN)
        target = self._targets.of(call.network)
        if target is None:
            target, output = self._targets.aim_late(call.network, call.execute)
            if output is not None:
                course.add(Decision(False, "looked for the structure"))
                return output
        if target.plan is None or target.info is None:
            return self._plainly(course, model, say.PLAIN)
        # Only a run with an end needs its sigma now; see SigmaReading for why it waits otherwise.
        if self._window[1] > 0 and self._outside_window(course.sigma) == say.AFTER_END:
            return self._plainly(course, model, say.AFTER_END)
        return self._gated(course, model, target)

    def _plainly(self, course: Course, model: Model, reason: str) -> Any:
        """Compute an evaluation without a look at it."""
        output = model()
        branch = self._branches.expected(course.key(0), course.turn, course.position)
        course.add(Decision(False, reason), branch)
        return output

    def _gated(self, course: Course, model: Model, target: Target) -> Any:
        assert target.info is not None and target.plan is not None
        call, info, plan = course.call, target.info, target.plan
        blocks = info.structure.blocks(call.network)
        idle = info.structure.idle_blocks(call.network, plan.last)
        obstacle = call.obstacle([block for _, block in blocks])
        if obstacle is not None:
            return self._recompute(course, model, obstacle, say.PLAIN)

        def decide(look: Look) -> Streams | None:
            with call.mark("decision"):
                residual = self._decide(course, look, info)
            if residual is not None:
                skipped = [*blocks[plan.first : plan.last + 1], *idle]
                call.leave_out([block for _, block in skipped])
            return residual

        tap = target.tap_point(call.network)
        evaluation = Evaluation(
            plan, decide, tap, course.begin_pass, call.outliving, target.watches
        )
        try:
            with (
                installed(evaluation.gates_for(blocks, idle)),
                recovery(functools.partial(self._holds, evaluation, call.device)),
            ):
                output = model()
        except Exception as error:
            failure = evaluation.failure or (error if is_ours(error) else None)
            dropped = self._branches.why_dropped(failure or error, call.device, evaluation.holds)
            if dropped is None and failure is None:
                raise
            sentence = dropped or failed_sentence(failure or error)
            reason = "out of memory" if dropped else say.WENT_WRONG
            if failure is not None and dropped is None:
                log_failure(failure)
            # Its traceback holds tensors of the evaluation, as the error's did.
            failure = evaluation.failure = None
        else:
            mixed = evaluation.tangled and any(each.skipped for each in evaluation.passes)
            if evaluation.failure is None and not evaluation.lost and not mixed:
                self._learn(course, evaluation)
                if not course.outcomes:
                    course.add(Decision(False, "first blocks not called"))
                return output
            sentence, reason = say.LAST_BLOCK_REPLACED, "last block not called"
            if mixed:
                sentence, reason = say.CALLED_AGAIN, "blocks called again"
            if evaluation.failure is not None:  # somebody's patch kept it to itself
                sentence, reason = failed_sentence(evaluation.failure), say.WENT_WRONG
        # Not before: the error's traceback kept the tensors of the evaluation alive.
        del evaluation
        return self._recompute(course, model, sentence, reason)

    def _holds(self, evaluation: Evaluation, device: torch.device) -> bool:
        """Whether memory of a device can be freed by dropping what is remembered."""
        return evaluation.holds or self._branches.holds(device)

    def _decide(self, course: Course, look: Look, info: RunInfo) -> Streams | None:
        """Choose for one call of the network: the residual to put in place, or None."""
        if self._closed:
            return None
        call, number = course.call, len(course.outcomes)
        self._branches.drop_abandoned(call.device, course.position)

        def make() -> Branch:
            policy = self._technique.open(replace(info, stage=call.stage))
            return self._branches.new_branch(call.label, call.device, policy, call.conds)

        meeting = self._branches.meet(
            course.key(number), course.turn, course.prediction, course.position, look, make
        )
        branch = meeting.branch
        assert branch.policy is not None and branch.forecast is not None
        blocked = self._outside_window(course.sigma) or self._blocked(meeting, look)
        decision = branch.policy.decide(course.step_of_stage, meeting.seen, blocked)
        alike = self._peers.agree(self._side.agree(decision.reuse))
        if decision.reuse and not alike:
            decision = replace(decision, reuse=False, reason=say.PEER_COMPUTES)
        course.add(decision, branch)
        return branch.forecast.predict(course.position, look.signal) if decision.reuse else None

    def _learn(self, course: Course, evaluation: Evaluation) -> None:
        """Remember what was computed; the output is right, whatever happens here."""
        call = course.call
        if evaluation.tangled:
            self.report.notice(say.CALLED_AGAIN)
            course.keep_one()
            return
        for seen, outcome in zip(evaluation.passes, course.outcomes, strict=False):
            if seen.skipped or outcome.branch is None:
                continue
            if seen.signal is None or seen.residual is None:
                self.report.notice(say.REPLACED)
                continue
            with call.mark("learning"):
                outcome.branch.learn(seen, course.step_of_stage, course.position)

    def _blocked(self, meeting: Meeting, look: Look) -> str | None:
        branch = meeting.branch
        if meeting.blocked == NOT_FINITE:
            self.report.notice(say.NOT_FINITE_SENTENCE)
        if look.must_run:
            return "this model must run here"
        if branch.hidden is not None and (branch.hidden, branch.shapes) != (
            look.hidden,
            look.shapes,
        ):
            # Some models change their number of tokens in mid-run; an old residual does not fit.
            branch.forecast = self._branches.new_forecast()
        if meeting.blocked is not None:
            return meeting.blocked
        assert branch.forecast is not None
        return None if branch.forecast.ready else NO_RESIDUAL

    def _recompute(self, course: Course, model: Model, sentence: str, reason: str) -> Any:
        """Compute an evaluation plainly that went wrong, and skip nothing from now on."""
        self.run_plainly(sentence)
        self._branches.free(course.call.device)
        course.leave()
        if not self._peers.alone:
            raise BeginAgainError(sentence)
        course.outcomes.clear()
        output = model()
        course.add(Decision(False, reason))
        return output

    # ---------------------------------------------------------------- bookkeeping

    def _read_sigma(self, sigma: torch.Tensor) -> SigmaReading:
        """The reading of the current sigma, which evaluations of one step share."""
        reading = self._reading
        if reading is None or reading.source is not sigma:
            reading = self._reading = SigmaReading(sigma)
            if not self._predicts:  # a guider that does not tell when it begins
                self._next_prediction()
        return reading

    def _outside_window(self, sigma: float) -> str | None:
        highest, lowest = self._window
        if sigma > highest:
            return "before start_percent"
        return say.AFTER_END if sigma < lowest else None

    def close(self, finished: bool) -> RunReport:
        """Free everything and return the finished report."""
        report = self.report
        self._closed = True
        self._side.close()
        report.outcome = "finished" if finished else "interrupted"
        self._records.end()
        little = report.skipped < WORTH_EXPLAINING * max(len(report.evaluations), 1)
        report.explanation = self._blocked_for_run or self._branches.explanation(report, little)
        report.promised = self._branches.promised()
        for notice in self._branches.notices():
            report.notice(notice)
        self._branches.close()
        self._targets.close()
        self._reading = None
        self._records.tell_end()
        return report

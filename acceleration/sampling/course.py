"""One evaluation on its way: what the host called, and what became of each call of the network."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import torch

from ..forecasts.corrector import leave_parts
from ..policies.base import Decision
from ..report import EvaluationRecord
from ..schedule import Schedule, SigmaReading, Stage
from ..timing import Mark, Span, unmarked
from .branches import Branch, Branches
from .passes import Outliving


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
    part_lengths: tuple[int, ...] = ()
    """Numbers a batch item of every part of a latent that holds several, flat: ``[B, 1, N]``."""
    obstacle: Callable[[Sequence[torch.nn.Module]], str | None] = lambda blocks: None
    """Why the host would not call gates on these blocks, or None."""
    leave_out: Callable[[Sequence[torch.nn.Module]], Any] = lambda blocks: None
    """Told of the blocks that are not going to run in this evaluation, once that is decided."""
    outliving: Outliving = nullcontext
    """The context in which tensors that outlive the evaluation are made."""
    stage: Stage | None = None
    """The part of the run that it belongs to, None in a run of one."""


@dataclass
class Outcome:
    """One call of the network and what became of it."""

    decision: Decision
    span: Span
    branch: Branch | None = None


class Course:
    """One evaluation on its way: where it lies in the schedule, and its calls of the network."""

    def __init__(
        self, call: Call, turn: int, prediction: int, schedule: Schedule, reading: SigmaReading,
        branches: Branches,
    ) -> None:  # fmt: skip
        self.call, self.turn, self.prediction = call, turn, prediction
        self.outcomes: list[Outcome] = []
        self._schedule, self._reading, self._branches = schedule, reading, branches
        self._position: float | None = None
        self._spans = [Span(call.device)]

    @property
    def sigma(self) -> float:
        """Of the evaluation; waits for it when it is first asked for."""
        return self._reading.value()

    @property
    def position(self) -> float:
        """Place in the schedule."""
        if self._position is None:
            last = self._branches.clock(self.key(0), self.turn)
            self._position = self._schedule.locate(self.sigma, last)
        return self._position

    @property
    def step(self) -> int:
        return self._schedule.step_of(self.position)

    @property
    def step_of_stage(self) -> int:
        """The step as policies count it, who know the steps of their stage only."""
        stage = self.call.stage
        return self.step if stage is None else stage.local(self.step)

    def key(self, number: int) -> Hashable:
        """What the n-th call of the network within the evaluation is known by."""
        return (self.call.key, number)

    def begin_pass(self) -> None:
        """Another call of the network begins, from the second on with a time of its own."""
        if len(self.outcomes) == len(self._spans):
            self._spans[-1].stop()
            self._spans.append(Span(self.call.device))

    def add(self, decision: Decision, branch: Branch | None = None) -> None:
        """Note what became of the call of the network at hand."""
        self.outcomes.append(Outcome(decision, self._spans[-1], branch))

    def keep_one(self) -> None:
        """It was one call of the network after all."""
        for outcome in self.outcomes[1:]:
            if outcome.branch is not None:
                self._branches.leave(outcome.branch)
        del self.outcomes[1:]

    def end(self) -> None:
        """The evaluation is over."""
        self._spans[-1].stop()

    def records(self) -> Iterator[tuple[EvaluationRecord, Span]]:
        """For the report: every call of the network, and its time."""
        stage = self.call.stage
        for number, outcome in enumerate(self.outcomes):
            decision, branch = outcome.decision, outcome.branch
            label = branch.label if branch is not None else self.call.label
            record = EvaluationRecord(
                self.step,
                self.position,
                self.sigma,
                label if not number else f"{label} (call {number + 1})",
                skipped=decision.reuse,
                reason=decision.reason,
                diff=decision.diff,
                seconds=0.0,
                forecast=decision.reuse and branch is not None and branch.extrapolates,
                threshold=decision.threshold,
                accumulated=decision.accumulated,
                size="" if stage is None else stage.name,
                full=stage is None or stage.full,
            )
            yield record, outcome.span

    def corrected(self, output: Any, parts_left: Callable[[Any, int], Sequence[bool]]) -> Any:
        """The output with what earlier skipped evaluations got wrong given back.

        ``parts_left`` says, of a network and a number of parts of the latent, which of them stay.
        """
        branch = self.outcomes[0].branch if self.outcomes else None
        corrector = branch.corrector if branch is not None else None
        if corrector is None or not isinstance(output, torch.Tensor):
            return output
        target = self._schedule.target_of(self.position)
        if target is None:
            corrector.forget()
            return output
        skipped = any(outcome.decision.reuse for outcome in self.outcomes)
        with self.call.mark("correction"):
            note = corrector.skipped if skipped else corrector.computed
            given = note(self.sigma, target, output)
            lengths = self.call.part_lengths
            return leave_parts(given, output, lengths, parts_left(self.call.network, len(lengths)))

    def leave(self) -> None:
        """Let others have the branches."""
        for outcome in self.outcomes:
            if outcome.branch is not None:
                self._branches.leave(outcome.branch)


class Model:
    """The host's model for one evaluation; remembers what is its own doing."""

    def __init__(self, execute: Callable[[], Any]) -> None:
        self._execute = execute
        self.output: Any = None
        self.ran = False
        self.error: BaseException | None = None

    def __call__(self) -> Any:
        self.ran, self.error = False, None
        try:
            self.output = self._execute()
        except BaseException as error:
            self.error = error
            raise
        self.ran = True
        return self.output

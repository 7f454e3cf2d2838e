"""Levers inside Split Across GPUs: they are opened in the processes that hold the network.

Each stands in the place of the run that the lever would open here, and does in the other processes
what that does.
"""

from __future__ import annotations

import logging
import math
from typing import Any

import torch

from ..attention import AttentionReport, AttentionSettings
from ..errors import AccelerationError
from ..failures import log_failure
from ..forecasts.corrector import SAMPLERS, Corrector
from ..parallel.parcels import packed
from ..policies.base import Technique
from ..report import RunReport
from ..sampling.branches import JUMPED, NOT_FINITE
from ..sampling.course import Call
from ..sampling.listener import Guarded, Listener
from ..sampling.sentences import PLAIN
from ..schedule import Schedule
from .far import SPLIT_KEY
from .memory import expected_branches
from .model import sampler_name
from .split_orders import CachingOrder, Course
from .split_run import BranchNumbers, SplitRun
from .stages import gain_of
from .wrapping import Sampling

log = logging.getLogger("dit_acceleration")


def split_of(options: dict[str, Any]) -> SplitRun | None:
    """The run of Split Across GPUs around a sampling run, or None."""
    found = options.get(SPLIT_KEY)
    return found if isinstance(found, SplitRun) else None


class FarCaching:
    """A caching run that decides in the ranks, all alike. Has what ``CachingAttachment`` asks of a
    ``SamplingRun``."""

    memory = None
    residual_device = ""
    expected_tensors = 0

    def __init__(
        self,
        split: SplitRun,
        technique: Technique,
        sampling: Sampling,
        window: tuple[float, float],
        listener: Listener | None,
    ) -> None:
        if not technique.changes_pictures:
            raise AccelerationError(
                f"{technique.name} writes down what it sees in ComfyUI's own process: connect it "
                "to the model before Split Across GPUs."
            )
        schedules = sampling.patcher.get_model_object("model_sampling")
        self._split, self._numbers, self._prediction = split, BranchNumbers(), 0
        self._schedule = Schedule.from_sigmas(
            sampling.sigmas.tolist(),
            float(getattr(schedules, "sigma_max", math.inf)),
            gain_of(sampling.options),
        )
        self._corrects = technique.settings.corrector
        self._correctors: dict[tuple[int, str], Corrector] = {}
        self._listener = Guarded(listener)
        sampler = sampler_name(sampling.sampler)
        self.report = RunReport(technique.name, settings=technique.describe(), sampler=sampler)
        self.report.steps = self._schedule.steps
        split.open_lever(
            "caching",
            CachingOrder(
                technique,
                self._schedule.sigmas,
                self._schedule.largest,
                sampler,
                window,
                expected_branches(sampling.guider),
                self._schedule.gain,
            ),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> FarCaching:
        return self

    def begin_prediction(self) -> None:
        """The guider begins to predict."""
        self._prediction += 1

    def evaluate(self, call: Call) -> Any:
        """Run one evaluation, of which the ranks know where it stands."""
        number = self._numbers.of(call.key)
        self._split.course = Course(
            number,
            call.label,
            packed(call.sigma),
            call.conds,
            call.part_lengths,
            call.stage,
            self._prediction,
        )
        self._split.records.clear()
        try:
            output = call.execute()
        finally:
            self._split.course = None
        for record in self._split.records:
            # Until the ranks' own report comes, without times.
            self.report.evaluations.append(record)
            self._listener.evaluated(record, lambda: self.report)
        try:
            return self._corrected(number, output)
        except Exception as error:
            self._corrects = False
            log_failure(error)
            return output

    def _corrected(self, number: int, output: Any) -> Any:
        """The output with what earlier skipped evaluations got wrong given back.

        Here and not in the ranks: it is about the picture that the host makes of the network's
        output.
        """
        record = next(iter(self._split.records), None)
        known = self.report.sampler in SAMPLERS
        if record is None or not self._corrects or not known or record.reason == PLAIN:
            return output
        corrector = self._correctors.setdefault(
            (number, record.branch), Corrector(SAMPLERS[self.report.sampler])
        )
        target = self._schedule.target_of(record.position)
        if target is None or record.reason in (JUMPED, NOT_FINITE):
            corrector.forget()
        if target is None:
            return output
        note = corrector.skipped if record.skipped else corrector.computed
        return note(record.sigma, target, output)

    def run_plainly(self, sentence: str) -> None:
        self.report.notice(sentence)

    def give_up(self, device: torch.device, error: Exception) -> None:
        log_failure(error)

    def close(self, finished: bool) -> RunReport:
        """Close it in the ranks, whose reports are alike; the first one's is told."""
        self._correctors.clear()
        told = len(self.report.evaluations)
        found = self._split.close_lever("caching", finished)
        first = next((report for report in found if report is not None), None)
        if first is not None:
            mine = self.report
            notices, settled = mine.notices, (mine.origins, mine.settings)
            vars(mine).update(vars(first))
            mine.origins, mine.settings = settled
            mine.notices = list(dict.fromkeys([*notices, *first.notices]))
            self._split.note_residuals(
                [report.residual_peak_bytes if report is not None else 0 for report in found]
            )
        self.report.outcome = "finished" if finished else "interrupted"
        for record in self.report.evaluations[told:]:
            self._listener.evaluated(record, lambda: self.report)
        self._listener.ended(self.report)
        return self.report


class FarAttention:
    """An Attention Backend that chooses in the ranks. What auto finds there is not kept."""

    def __deepcopy__(self, memo: dict[int, Any]) -> FarAttention:
        return self

    def __init__(
        self, split: SplitRun, settings: AttentionSettings, report: AttentionReport, steps: int
    ) -> None:
        self._split, self.report, self.steps = split, report, steps
        self.memory: dict[str, Any] = {}
        self.known: dict[str, Any] = {}
        split.open_lever("attention", settings)

    def put_in(self, options: dict[str, Any]) -> None:
        """Nothing: the options of the ranks are not these."""

    def take_out(self, options: dict[str, Any]) -> None:
        """Nothing either."""

    def close(self, finished: bool) -> AttentionReport:
        found = self._split.close_lever("attention", finished)
        first = next((report for report in found if report is not None), None)
        if first is not None:
            mine = self.report
            kept = (mine.notices, mine.origins)
            vars(mine).update(vars(first))
            mine.notices = list(dict.fromkeys([*kept[0], *first.notices]))
            mine.origins = kept[1]
        return self.report

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
from ..policies.base import Technique
from ..report import RunReport
from ..sampling.course import Call
from ..sampling.listener import Guarded, Listener
from .far import SPLIT_KEY
from .memory import expected_branches
from .model import sampler_name
from .split_orders import CachingOrder, Course
from .split_run import BranchNumbers, SplitRun
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
        self._listener = Guarded(listener)
        sampler = sampler_name(sampling.sampler)
        self.report = RunReport(technique.name, settings=technique.describe(), sampler=sampler)
        split.open_lever(
            "caching",
            CachingOrder(
                technique,
                tuple(map(float, sampling.sigmas.tolist())),
                float(getattr(schedules, "sigma_max", math.inf)),
                sampler,
                window,
                expected_branches(sampling.guider),
            ),
        )

    def __deepcopy__(self, memo: dict[int, Any]) -> FarCaching:
        return self

    def begin_prediction(self) -> None:
        """The guider begins to predict."""
        self._prediction += 1

    def evaluate(self, call: Call) -> Any:
        """Run one evaluation, of which the ranks know where it stands."""
        self._split.course = Course(
            self._numbers.of(call.key),
            call.label,
            call.sigma.detach().cpu(),
            call.conds,
            call.part_lengths,
            call.stage,
            self._prediction,
        )
        try:
            return call.execute()
        finally:
            self._split.course = None

    def run_plainly(self, sentence: str) -> None:
        self.report.notice(sentence)

    def give_up(self, device: torch.device, error: Exception) -> None:
        log_failure(error)

    def close(self, finished: bool) -> RunReport:
        """Close it in the ranks, whose reports are alike; the first one's is told."""
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
        for record in self.report.evaluations:
            self._listener.evaluated(record, lambda: self.report)
        self._listener.ended(self.report)
        return self.report


class FarAttention:
    """An Attention Backend that chooses in the ranks. What auto finds there is not kept."""

    def __deepcopy__(self, memo: dict[int, Any]) -> FarAttention:
        return self

    def __init__(
        self, split: SplitRun, settings: AttentionSettings, report: AttentionReport
    ) -> None:
        self._split, self.report = split, report
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

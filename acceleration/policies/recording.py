"""Computes everything and records changes, for calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from ..families import Structure, Tap
from ..report import RunReport
from ..settings.caching import CachingSettings
from ..signals import relative_change
from .base import Decision, Policy, RunInfo, Seen


@dataclass
class Recording:
    """Changes from one evaluation of a branch to the next, in order. Plain numbers only."""

    inputs: list[float] = field(default_factory=list)
    outputs: list[float] = field(default_factory=list)


class RecordingPolicy(Policy):
    """Never skips."""

    wants_output = True

    def __init__(self, info: RunInfo, recording: Recording, tap: Tap | None) -> None:
        self._recording = recording
        self._change: float | None = None
        self._output: torch.Tensor | None = None
        self.tap = tap

    def decide(self, step: int, seen: Seen, blocked: str | None) -> Decision:
        self._change = seen.since_last
        return Decision(False, "calibrating")

    def computed(self, step: int, signal: torch.Tensor, output: torch.Tensor | None) -> None:
        if output is None:
            return
        before, self._output = self._output, output
        if before is None or before.shape != output.shape or self._change is None:
            return
        change = float(relative_change(output, before))
        # The same input again (a second evaluation of one step) says nothing about steps.
        if math.isfinite(change) and self._change > 0:
            self._recording.inputs.append(self._change)
            self._recording.outputs.append(change)

    def tensors(self) -> list[torch.Tensor]:
        return [] if self._output is None else [self._output]

    def explain(self, report: RunReport) -> str | None:
        return "this run records changes and computes everything"


class Recorder:
    """The technique behind Calibrate TeaCache."""

    name = "TeaCache calibration"
    settings = CachingSettings()
    changes_pictures = False

    def __init__(self, recording: Recording) -> None:
        self.recording = recording

    def check(self, structure: Structure) -> None:
        """Every known family can be recorded."""

    def notices(self, info: RunInfo) -> list[str]:
        return []

    def open(self, info: RunInfo) -> RecordingPolicy:
        return RecordingPolicy(info, self.recording, info.structure.family.tap)

    def describe(self) -> dict[str, object]:
        return {}

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
    """Of TeaCache's input."""
    outputs: list[float] = field(default_factory=list)
    """Of the hidden state after the last block, beside each of ``inputs``."""
    first_blocks: list[float] = field(default_factory=list)
    """Of what the first block adds, by which Cache-DiT decides."""


class RecordingPolicy(Policy):
    """Never skips."""

    watches = True

    def __init__(self, info: RunInfo, recording: Recording, tap: Tap | None) -> None:
        self._recording = recording
        self._change: float | None = None
        self._first: torch.Tensor | None = None
        self._output: torch.Tensor | None = None
        self.tap = tap

    def decide(self, step: int, seen: Seen, blocked: str | None) -> Decision:
        self._change = seen.since_last
        return Decision(False, "calibrating")

    def first_block(self, residual: torch.Tensor | None) -> None:
        before, self._first = self._first, residual
        if residual is not None and before is not None and before.shape == residual.shape:
            change = float(relative_change(residual, before))
            if math.isfinite(change):
                self._recording.first_blocks.append(change)

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
        return [kept for kept in (self._first, self._output) if kept is not None]

    def explain(self, report: RunReport) -> str | None:
        return "this run records changes and computes everything"


class Recorder:
    """The technique behind Calibrate TeaCache."""

    name = "TeaCache calibration"
    title = "Calibrate TeaCache"
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

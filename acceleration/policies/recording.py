"""Computes everything and records changes, for calibration."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import torch

from ..families import Structure, Tap
from ..report import RunReport
from . import Decision, RunInfo


@dataclass
class Recording:
    """Changes from one evaluation of a branch to the next, in order. Plain numbers only."""

    inputs: list[float] = field(default_factory=list)
    outputs: list[float] = field(default_factory=list)


def relative_change(now: torch.Tensor, before: torch.Tensor) -> float:
    """``mean|now - before| / mean|before|``."""
    return float(((now - before).abs().mean() / before.abs().mean()).item())


class RecordingPolicy:
    """Never skips."""

    first_blocks = 0
    last_blocks = 0
    wants_output = True
    max_age = math.inf

    def __init__(self, info: RunInfo, recording: Recording, tap: Tap | None) -> None:
        self._recording = recording
        self._last: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        self.tap = tap

    def decide(self, branch: str, step: int, signal: torch.Tensor, blocked: str | None) -> Decision:
        return Decision(False, "calibrating")

    def computed(
        self, branch: str, step: int, signal: torch.Tensor, output: torch.Tensor | None
    ) -> None:
        if output is None:
            return
        last = self._last.get(branch)
        self._last[branch] = (signal, output)
        if last is None or last[0].shape != signal.shape:
            return
        change = relative_change(signal, last[0]), relative_change(output, last[1])
        # The same input again (a second evaluation of one step) says nothing about steps.
        if all(math.isfinite(c) for c in change) and change[0] > 0:
            self._recording.inputs.append(change[0])
            self._recording.outputs.append(change[1])

    def forget(self, branch: str) -> None:
        self._last.pop(branch, None)

    def tensors(self) -> list[torch.Tensor]:
        return [t for pair in self._last.values() for t in pair]

    def explain(self, report: RunReport) -> str | None:
        return "this run records changes and computes everything"

    def close(self) -> None:
        self._last.clear()


class Recorder:
    """The technique behind Calibrate TeaCache."""

    name = "TeaCache calibration"
    calibrator = "none"
    taylorseer_order = 1
    residual_device = "auto"
    start_percent = 0.0
    end_percent = 1.0
    corrector = False

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

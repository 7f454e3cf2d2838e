"""What Quantize Model made of a model, as plain data."""

from __future__ import annotations

from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any

from ..report import SWITCHED_OFF, Report
from .measure import Choice

NAME = "Quantize Model"


@dataclass(frozen=True)
class LayerReport:
    """One quantized layer."""

    path: str
    format: str
    basis: str
    """What was done before rounding: smoothed, rotated, or nothing."""
    local: float
    """Relative error of its own output."""
    error: float | None
    """Relative error of the model's prediction, if only this layer is quantized."""
    bytes_before: int
    bytes_after: int

    @classmethod
    def of(cls, choice: Choice) -> LayerReport:
        return cls(
            choice.layer.path, choice.format, choice.basis, choice.local, choice.error,
            choice.layer.bytes, choice.bytes,
        )  # fmt: skip


@dataclass
class QuantizeReport(Report):
    """What a model became; the same for every run with it."""

    precision: str = ""
    """The precision in force, where auto was asked for."""
    left_alone: str = ""
    """Why nothing was quantized; empty when something was."""
    layers: list[LayerReport] = field(default_factory=list)
    kept: dict[str, str] = field(default_factory=dict)
    """Layers of the blocks that stay, and why."""
    went_back: list[str] = field(default_factory=list)
    """Layers that stay because the whole model changed too much."""
    bytes_before: int = 0
    bytes_after: int = 0
    """Of all weights of the network."""
    own_bytes: int = 0
    """Of the quantized weights; all else is shared with the model as it was."""
    predicted: float | None = None
    """Error of the whole model, from the errors of single layers."""
    measured: float | None = None
    """Error of the whole model: of its prediction, relative (L2), mean over the states."""
    states: int = 0
    probe: str = ""
    """With what was measured."""
    race: str = ""
    """What auto found by trying."""
    folded: int = 0
    """Layers into which LoRAs were folded."""
    exact_evaluations: int = 0
    evaluations: int = 0
    """Of the last run."""
    seconds: float = 0.0
    """That quantizing took."""

    @property
    def formats(self) -> dict[str, int]:
        """Number of layers by format."""
        return dict(Counter(layer.format for layer in self.layers).most_common())

    def sentence(self) -> str:
        """What became of the model, in one sentence."""
        if self.left_alone:
            return f"{NAME}: the model is as it was: {self.left_alone}."
        formats = ", ".join(f"{count} {name}" for name, count in self.formats.items())
        text = f"{NAME} ({self.precision}): {formats} of {len(self.layers) + len(self.kept)} layers"
        text += f"; weights {_size(self.bytes_before)} → {_size(self.bytes_after)}"
        if self.measured is not None:
            text += f"; error {100 * self.measured:.2g} %"
            if self.predicted is not None:
                text += f" (predicted {100 * self.predicted:.2g} %)"
        if self.went_back:
            text += f"; {len(self.went_back)} layers went back"
        return text + "."

    def lines(self) -> list[str]:
        lines = [self.sentence()]
        if self.outcome == SWITCHED_OFF or self.left_alone:
            return [*lines, *([f"Race: {self.race}."] if self.race else [])]
        lines.append(
            f"  of its own {_size(self.own_bytes)}, shared with the model before this node "
            f"{_size(self.bytes_after - self.own_bytes)}"
        )
        if self.probe:
            lines.append(f"  measured with {self.probe}; {self.states} states")
        if self.race:
            lines.append(f"  race: {self.race}")
        if self.folded:
            lines.append(f"  LoRAs folded into {self.folded} layers")
        if self.exact_evaluations:
            lines.append(
                f"  exact activations in {self.exact_evaluations} of {self.evaluations} evaluations"
            )
        if self.went_back:
            lines.append(f"  went back: {_some(self.went_back)}")
        worst = sorted(self.layers, key=lambda layer: -(layer.error or layer.local))[:3]
        if worst and worst[0].error is not None:
            named = (f"{w.path} ({w.format}) {100 * (w.error or 0):.2g} %" for w in worst)
            lines.append(f"  largest errors of single layers: {', '.join(named)}")
        return lines

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        own = {k: v for k, v in asdict(self).items() if k not in ("origins", "notices", "settings")}
        return {**super().as_dict(), **own, "formats": self.formats}


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.2f} MB"


def _some(names: list[str], most: int = 8) -> str:
    rest = len(names) - most
    return ", ".join(names[:most]) + (f" and {rest} more" if rest > 0 else "")

"""TeaCache (arXiv 2411.19108): skip while the estimated change of the output stays small.

Per branch: ``rel = mean|x - x_prev| / mean|x_prev|`` of the tapped input x, ``acc += p(rel)`` with
a polynomial fitted to the model; below the threshold all blocks are skipped, at or above it they
run and ``acc`` starts again at 0. x_prev is the input of the evaluation before, skipped or not.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from typing import Any

import torch

from ..errors import AccelerationError
from ..families import FAMILIES, Structure, Tap, TeaCacheFit
from ..families.base import HIDDEN_STATE
from ..report import RunReport
from ..settings import TeaCacheSettings
from . import Decision, RunInfo, check_forecast, corrector_notices

# Without a fit the change of the input itself is summed up. A guess, not a published figure.
RAW = TeaCacheFit("raw", (1.0, 0.0), 0.2)

FindFit = Callable[[Any], "TeaCacheFit | None"]


def published_fits() -> list[str]:
    """Names of every published fit, for the node's list."""
    return [fit.name for family in FAMILIES for fit in family.fits]


@dataclass
class _Branch:
    previous: torch.Tensor | None = None
    accumulated: float = 0.0
    computed_step: int = -1


class TeaCachePolicy:
    """Decisions of one run on one device."""

    first_blocks = 0
    last_blocks = 0
    wants_output = False

    def __init__(self, settings: TeaCacheSettings, info: RunInfo, fit: TeaCacheFit) -> None:
        self._settings = settings
        self._info = info
        self._fit = fit
        self._threshold = settings.rel_l1_thresh or fit.threshold
        self._branches: dict[str, _Branch] = {}
        self._estimates: list[float] = []
        self.tap: Tap | None = fit.tap or info.structure.family.tap
        limit = settings.max_continuous_cached_steps
        self.max_age: float = limit if limit >= 0 else math.inf

    def decide(self, branch: str, step: int, signal: torch.Tensor, blocked: str | None) -> Decision:
        state = self._branches.setdefault(branch, _Branch())
        previous, state.previous = state.previous, signal
        if previous is None or previous.shape != signal.shape:
            return Decision(False, blocked or "first evaluation")
        diff = float(((signal - previous).abs().mean() / previous.abs().mean()).item())
        if not math.isfinite(diff):
            return Decision(False, "not a finite change")
        estimate = self._fit.estimate(diff)
        state.accumulated += estimate
        self._estimates.append(estimate)
        reason = blocked or self._why_computed(state, step)
        return Decision(
            reason is None, reason or "below threshold", diff, self._threshold, state.accumulated
        )

    def _why_computed(self, state: _Branch, step: int) -> str | None:
        steps = self._info.schedule.steps
        if step < self._fit.first_steps:
            return "first steps"
        if step >= steps - 1:
            return "last step"
        limit = self._settings.max_continuous_cached_steps
        if limit == 0 or 0 <= limit < step - state.computed_step:
            return "limit of cached steps"
        return "above threshold" if state.accumulated >= self._threshold else None

    def computed(
        self, branch: str, step: int, signal: torch.Tensor, output: torch.Tensor | None
    ) -> None:
        state = self._branches.setdefault(branch, _Branch())
        state.accumulated = 0.0
        state.computed_step = step

    def forget(self, branch: str) -> None:
        self._branches.pop(branch, None)

    def tensors(self) -> list[torch.Tensor]:
        return [s.previous for s in self._branches.values() if s.previous is not None]

    def explain(self, report: RunReport) -> str | None:
        steps = self._info.schedule.steps
        if steps <= self._fit.first_steps + 1:
            return f"{steps} steps: the first and the last are always computed"
        if not self._estimates:
            return None
        typical = statistics.median(self._estimates)
        if typical >= self._threshold:
            return (
                f"the estimated change per step is {typical:.3g}, above the threshold of "
                f"{self._threshold:g}: raise rel_l1_thresh to skip more"
            )
        return None

    def close(self) -> None:
        self._branches.clear()


class TeaCache:
    """The technique behind Apply TeaCache.

    Parameters
    ----------
    settings
        What was asked for.
    find_fit
        Looks up what Calibrate TeaCache stored for a network, or None.
    """

    name = "TeaCache"

    def __init__(self, settings: TeaCacheSettings, find_fit: FindFit = lambda _: None) -> None:
        self.settings = settings
        self._find_fit = find_fit
        self.calibrator = settings.calibrator
        self.taylorseer_order = settings.taylorseer_order
        self.residual_device = settings.residual_device
        self.start_percent = settings.start_percent
        self.end_percent = settings.end_percent
        self.corrector = settings.corrector

    def check(self, structure: Structure) -> None:
        check_forecast(self.name, self.calibrator, structure)
        name = self.settings.coefficients
        known = [fit.name for fit in structure.family.fits]
        if name not in ("auto", "raw", "custom", *known):
            other = ", ".join(known) or "none"
            raise AccelerationError(
                f"coefficients is {name!r}, which was not made for {structure.family.name}: choose "
                f"auto, raw or custom (published for this family: {other})."
            )

    def fit_for(self, structure: Structure, network: Any) -> tuple[TeaCacheFit, str]:
        """The fit to use and a phrase that says where it comes from."""
        settings, family = self.settings, structure.family
        if settings.coefficients == "custom":
            return TeaCacheFit("custom", settings.polynomial, RAW.threshold), "custom coefficients"
        named = family.fit(settings.coefficients)
        if named is not None:
            return named, f"published coefficients {named.name}"
        if settings.coefficients == "auto":
            calibrated = self._find_fit(network)
            if calibrated is not None:
                return calibrated, "coefficients calibrated on this checkpoint"
            chosen = family.choose_fit(network) if family.choose_fit else None
            published = family.fit(chosen) if chosen else None
            if published is not None:
                return published, f"published coefficients {published.name}"
        return RAW, (
            f"the raw change of the input, as no coefficients are known for this "
            f"{family.name} model (threshold {RAW.threshold:g} is a guess; Calibrate TeaCache "
            "makes some)"
        )

    def _fit(self, info: RunInfo) -> tuple[TeaCacheFit, str]:
        """As ``fit_for``, but a fit is only used on the input that it was made for."""
        fit, source = self.fit_for(info.structure, info.network)
        tap = fit.tap or info.structure.family.tap
        if tap is None or not tap.path or info.structure.tapped_module(info.network, tap):
            return fit, source
        return replace(RAW, tap=HIDDEN_STATE), (
            f"the raw change of the hidden state, as this network has no {tap.path!r} to read "
            "TeaCache's input from"
        )

    def notices(self, info: RunInfo) -> list[str]:
        fit, source = self._fit(info)
        threshold = self.settings.rel_l1_thresh
        text = f"TeaCache uses {source}"
        if not threshold:
            text += f", with the recommended threshold {fit.threshold:g}"
        return [text, *corrector_notices(self.corrector, info.sampler)]

    def open(self, info: RunInfo) -> TeaCachePolicy:
        return TeaCachePolicy(self.settings, info, self._fit(info)[0])

    def describe(self) -> dict[str, object]:
        return asdict(self.settings)

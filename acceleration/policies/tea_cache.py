"""TeaCache (arXiv 2411.19108): skip while the estimated change of the output stays small.

Per branch: ``rel = mean|x - x_prev| / mean|x_prev|`` of the tapped input x, ``acc += p(rel)`` with
a polynomial fitted to the model; below the threshold all blocks are skipped, at or above it they
run and ``acc`` starts again at 0. x_prev is the input of the evaluation before, skipped or not.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from ..errors import AccelerationError
from ..families import Structure, Tap, TeaCacheFit
from ..families.base import HIDDEN_STATE
from ..report import RunReport
from ..settings.caching import TeaCacheSettings
from .base import FAST_ALREADY, Decision, Policy, RunInfo, Seen, corrector_notices

# Without a fit the change of the input itself is summed up. A guess, not a published figure.
RAW = TeaCacheFit("raw", (1.0, 0.0), 0.2)

FindFit = Callable[[Any], "TeaCacheFit | None"]


class TeaCachePolicy(Policy):
    """Decisions for one branch."""

    def __init__(self, settings: TeaCacheSettings, info: RunInfo, fit: TeaCacheFit) -> None:
        self._settings = settings
        self._info = info
        self._fit = fit
        self._threshold = settings.rel_l1_thresh or fit.threshold
        self._accumulated = 0.0
        self._computed_step = -1
        self._estimates: list[float] = []
        self.tap: Tap | None = fit.tap or info.structure.family.tap
        limit = settings.max_continuous_cached_steps
        self.max_age: float = limit if limit >= 0 else math.inf

    def decide(self, step: int, seen: Seen, blocked: str | None) -> Decision:
        diff = seen.since_last
        if diff is None:
            return Decision(False, blocked or "first evaluation")
        estimate = self._fit.estimate(diff)
        self._accumulated += estimate
        self._estimates.append(estimate)
        reason = blocked or self._why_computed(step)
        return Decision(
            reason is None, reason or "below threshold", diff, self._threshold, self._accumulated
        )

    def _why_computed(self, step: int) -> str | None:
        steps = self._info.steps
        if step < self._fit.first_steps:
            return "first steps"
        if step >= steps - 1:
            return "last step"
        limit = self._settings.max_continuous_cached_steps
        if limit == 0 or 0 <= limit < step - self._computed_step:
            return "limit of cached steps"
        return "above threshold" if self._accumulated >= self._threshold else None

    def computed(self, step: int, signal: torch.Tensor, output: torch.Tensor | None) -> None:
        self._accumulated = 0.0
        self._computed_step = step

    def explain(self, report: RunReport) -> str | None:
        steps = self._info.steps
        if steps <= self._fit.first_steps + 1:
            return f"{steps} steps: the first and the last are always computed; {FAST_ALREADY}"
        if not self._estimates:
            return None
        typical = statistics.median(self._estimates)
        if typical >= self._threshold:
            return (
                f"the estimated change per step is {typical:.3g}, above the threshold of "
                f"{self._threshold:g}: raise rel_l1_thresh to skip more"
            )
        return None


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
    title = "Apply TeaCache"
    changes_pictures = True

    def __init__(self, settings: TeaCacheSettings, find_fit: FindFit = lambda _: None) -> None:
        self.settings = settings
        self._find_fit = find_fit

    def check(self, structure: Structure) -> None:
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
        return [text, *corrector_notices(self.settings.corrector, info.sampler)]

    def open(self, info: RunInfo) -> TeaCachePolicy:
        return TeaCachePolicy(self.settings, info, self._fit(info)[0])

    def describe(self) -> dict[str, object]:
        return asdict(self.settings)

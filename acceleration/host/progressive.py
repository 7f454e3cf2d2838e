"""Progressive Resolution on a MODEL: early evaluations of the network at a smaller size."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import torch

from ..failures import failed_sentence
from ..progressive import ProgressiveReport, ProgressiveSettings
from ..progressive.report import NAME
from ..settings.sections import Resolved
from .levers import SwitchedOff, argument, put, require_model
from .live_report import LiveNode
from .progressive_run import ProgressiveRun
from .spectra import fit_spectrum
from .stages import PROGRESSIVE_KEY
from .wrapping import RunLever, Sampling


class ProgressiveAttachment(RunLever):
    """The lever. The run travels in the run's own ``transformer_options``."""

    name = NAME
    key = PROGRESSIVE_KEY
    changes_pictures = True

    def __init__(
        self,
        settings: ProgressiveSettings,
        node_id: str | None,
        resolved: Resolved | None,
        note: str,
    ) -> None:
        self.settings = settings
        self.note = note
        self.resolved = resolved
        super().__init__(LiveNode.of(node_id))

    def wrappers(self) -> list[tuple[str, Callable[..., Any]]]:
        """One opens and closes the run, the other makes predictions small."""
        from comfy.patcher_extension import WrappersMP

        return [*super().wrappers(), (WrappersMP.PREDICT_NOISE, self.predict_noise)]

    def _open(self, sampling: Sampling) -> ProgressiveRun:
        guider, args, kwargs = sampling.guider, sampling.args, sampling.kwargs
        listener = self.shown.listener(seldom=True) if self.shown is not None else None
        return ProgressiveRun(self.settings, guider, args, kwargs, self._report(), listener)

    def _close(self, run: ProgressiveRun, finished: bool) -> None:
        run.close(finished)

    def _not_opened(self, error: Exception) -> None:
        super()._not_opened(error)
        self.last_report = self._report()
        self.last_report.refuse(failed_sentence(error))

    def _report(self) -> ProgressiveReport:
        report = ProgressiveReport(settings=asdict(self.settings))
        report.came_from(self.resolved)
        if self.note:
            report.notice(self.note)
        return report

    @staticmethod
    def predict_noise(executor: Any, *args: Any, **kwargs: Any) -> Any:
        """PREDICT_NOISE: ``(x, timestep, model_options, seed)``."""
        options = argument(args, kwargs, 2, "model_options") or executor.class_obj.model_options
        run = options.get("transformer_options", {}).get(PROGRESSIVE_KEY)
        if not isinstance(run, ProgressiveRun) or run.idle:
            return executor(*args, **kwargs)
        x, sigma = argument(args, kwargs, 0, "x"), argument(args, kwargs, 1, "timestep")
        return run.predict(
            executor.class_obj,
            sigma,
            options,
            lambda given: executor(x, sigma, given, argument(args, kwargs, 3, "seed")),
        )


def attach_progressive(
    model: Any,
    settings: ProgressiveSettings,
    node_id: str | None = None,
    resolved: Resolved | None = None,
    latents: Mapping[str, torch.Tensor] | None = None,
) -> Any:
    """A clone of a MODEL whose early evaluations are small.

    Parameters
    ----------
    latents
        Encoded pictures to fit the spectrum to, for this run and those to come.

    Raises
    ------
    AccelerationError
        When the input is no MODEL, or no spectrum can be fitted to the latents.
    """
    require_model(model, NAME)
    note = fit_spectrum(model, latents) if latents is not None else ""
    if settings.mode == "off":
        off = SwitchedOff(NAME, settings, "mode is off", LiveNode.of(node_id))
        return put(model, PROGRESSIVE_KEY, off)
    lever = ProgressiveAttachment(settings, node_id, resolved, note)
    # Outermost, so that caching, whichever node comes first, opens a run whose stages are known.
    return put(model, PROGRESSIVE_KEY, lever, outermost=True)

"""Quantize Model on a MODEL: a clone that holds a quantized twin of it."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from typing import Any

import torch

from ..errors import AccelerationError
from ..quantize import QuantizeReport, QuantizeSettings
from ..quantize.report import NAME
from ..quantize.settings import AUTO
from ..schedule import Schedule
from ..settings.sections import Resolved
from .levers import PREFIX, SwitchedOff, put, require_model
from .live_report import send_text
from .quantize_kernels import kernels_of
from .quantize_twin import refuse_model
from .stages import sampler_sigma
from .wrapping import ModelCall, RunLever, Sampling

log = logging.getLogger("dit_acceleration")

QUANTIZE_KEY = f"{PREFIX}.quantize"
"""Key of the lever and of its run in ``transformer_options``."""

TOO_OLD = (
    "this ComfyUI has no int8 weights (they came with 0.27): update it, or load a quantized "
    "checkpoint instead"
)


def why_not_here() -> str:
    """What this host lacks, as part of a sentence; empty when it has all."""
    try:
        from comfy.ops import mixed_precision_ops  # noqa: F401
        from comfy.quant_ops import QUANT_ALGOS
    except ImportError:
        return TOO_OLD
    return "" if "int8_tensorwise" in QUANT_ALGOS else TOO_OLD


FEW_STEPS = 8
"""Up to so many there is hardly anything to skip, and smaller numbers are what is left."""


def would_help(model: Any, steps: int) -> str:
    """When a quantized model would help and is not there, that as a sentence; else nothing."""
    formats = kernels_of(model.load_device)
    there = model.get_attachment(QUANTIZE_KEY) is not None
    if there or steps > FEW_STEPS or model.load_device.type == "cpu" or not formats:
        return ""
    try:
        refuse_model(model)
    except AccelerationError:
        return ""
    return (
        f"with {steps} steps there is little to skip: {NAME}, right after the loader, makes the "
        f"model smaller and may make it faster (this device has {', '.join(sorted(formats))})"
    )


class QuantizeRun:
    """One sampling run: which evaluations compute with exact activations."""

    def __init__(self, settings: QuantizeSettings, report: QuantizeReport, sigmas: Any) -> None:
        self.report = report
        self._schedule = Schedule.from_sigmas([float(s) for s in sigmas])
        self._steps = settings.exact_steps
        if self._steps and 2 * self._steps >= self._schedule.steps:
            report.notice(
                f"exact_steps {self._steps} covers all {self._schedule.steps} steps: only memory "
                "is saved in this run"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> QuantizeRun:
        # The run travels in transformer_options, which other packs copy.
        return self

    def is_exact(self, sigma: float) -> bool:
        """Whether an evaluation is one of the first or last steps."""
        step = self._schedule.step_of(self._schedule.locate(sigma))
        return step < self._steps or step >= self._schedule.steps - self._steps


class QuantizeAttachment(RunLever):
    """The lever. What became of the model is known before any run."""

    name = NAME
    key = QUANTIZE_KEY
    changes_pictures = True

    def __init__(
        self, settings: QuantizeSettings, node_id: str | None, resolved: Resolved | None
    ) -> None:
        self.settings = settings
        self.node_id = node_id
        super().__init__()
        self.report = QuantizeReport(settings=asdict(settings))
        self.report.came_from(resolved)

    def prepare(self, model: Any) -> None:
        """Refuse what cannot be quantized."""
        lacking = why_not_here()
        if lacking and self.settings.precision != AUTO:
            raise AccelerationError(f"{NAME}: {lacking}.")
        refuse_model(model)

    def wrappers(self) -> list[tuple[str, Callable[..., Any]]]:
        """One opens and closes the run, the other makes activations exact in some steps."""
        from comfy.patcher_extension import WrappersMP

        found = super().wrappers()
        if self.settings.exact_steps:
            found.append((WrappersMP.APPLY_MODEL, self.apply_model))
        return found

    def _open(self, sampling: Sampling) -> QuantizeRun:
        report = replace(self.report, notices=list(self.report.notices), outcome="running")
        return QuantizeRun(self.settings, report, sampling.sigmas)

    def _close(self, run: QuantizeRun, finished: bool) -> None:
        run.report.outcome = "finished" if finished else "interrupted"
        send_text(self.node_id, run.report.sentence())

    @staticmethod
    def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
        """APPLY_MODEL: see ``ModelCall``."""
        call = ModelCall(executor, args, kwargs)
        run = call.run_of(QUANTIZE_KEY)
        if not isinstance(run, QuantizeRun):
            return call.execute()
        try:
            exact = run.is_exact(float(sampler_sigma(call.options).flatten()[0]))
        except Exception as error:
            run.report.notice(f"exact_steps could not tell the step ({error!r:.120})")
            exact = False
        run.report.evaluations += 1
        run.report.exact_evaluations += exact
        if not exact:
            return call.execute()
        # A flag of the layer: torch.compile looks at it, and compiles once for each value.
        layers = [m for m in call.network.modules() if _rounds_input(m)]
        for layer in layers:
            layer._full_precision_mm = True
        try:
            return call.execute()
        finally:
            for layer in layers:
                layer._full_precision_mm = False


def _rounds_input(module: torch.nn.Module) -> bool:
    return (
        getattr(module, "layout_type", None) is not None
        and getattr(module, "_full_precision_mm", None) is False
    )


def attach_quantize(
    model: Any,
    settings: QuantizeSettings,
    node_id: str | None = None,
    resolved: Resolved | None = None,
    positive: Any = None,
    latent: Any = None,
    emulate: bool = False,
) -> Any:
    """A clone of a MODEL whose blocks have quantized weights; the model itself stays as it is.

    Parameters
    ----------
    positive
        A CONDITIONING to measure with; None takes noise in its place.
    latent
        An empty latent ``[B, C, …]`` to measure with; None takes a small one.
    emulate
        See ``Wish``.

    Raises
    ------
    AccelerationError
        When the input is no MODEL, is quantized already, or the host lacks the format.
    """
    require_model(model, NAME)
    lever = QuantizeAttachment(settings, node_id, resolved)
    marked = put(model, QUANTIZE_KEY, lever)
    if isinstance(marked.get_attachment(QUANTIZE_KEY), SwitchedOff):
        return marked
    report = lever.report
    began = time.monotonic()
    report.left_alone = why_not_here()
    found = None
    if not report.left_alone:
        from .quantize_choose import Chooser, Wish

        found = Chooser(marked, Wish(settings, positive, latent, emulate), report).made()
    report.seconds = time.monotonic() - began
    lever.last_report = report
    log.info("%s", report.sentence())
    send_text(node_id, report.sentence())
    return marked if found is None else found

"""The Attention Backend on a MODEL: an override for the length of one sampling run."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch

from ..attention import AttentionReport, AttentionRun, AttentionSettings, class_of
from ..attention.device import DeviceFacts, facts_of
from ..errors import AccelerationError
from ..report import RunReport
from ..sampling.gates import untraced
from ..settings.sections import Resolved
from . import prefetch, remembered
from .far_levers import FarAttention, split_of
from .levers import lever_of, put
from .live_report import LiveNode, send_text
from .stages import sampler_sigma
from .wrapping import ModelCall, RunLever, Sampling, step_in, step_out

log = logging.getLogger("dit_acceleration")

ATTENTION_KEY = "dit_acceleration.attention"
"""Key of the lever and of its run in ``transformer_options``."""
OVERRIDE = "optimized_attention_override"
"""The host's name for "ask this before every attention", in ``transformer_options``."""
NAME = "Attention Backend"


def override(function: Any, *args: Any, **kwargs: Any) -> Any:
    """What the host asks before every attention: ``function`` is what it would have called.

    One function for all models and runs, because torch.compile guards on the identity of what it
    calls; it finds the run in the call's own ``transformer_options``.
    """
    run: AttentionRun | None = (kwargs.get("transformer_options") or {}).get(ATTENTION_KEY)
    if run is None:
        return function(*args, **kwargs)
    try:
        return run.attend(function, args, kwargs)
    except AccelerationError as error:
        raise error.of(NAME) from None


class AttentionAttachment(RunLever):
    """The lever. The run travels in the run's own ``transformer_options``."""

    name = NAME
    key = ATTENTION_KEY

    def __init__(
        self,
        settings: AttentionSettings,
        node_id: str | None = None,
        resolved: Resolved | None = None,
    ) -> None:
        self.settings = settings
        self.resolved = resolved
        self.replaced: str | None = None
        self.node_id = node_id
        super().__init__(LiveNode.of(node_id))

    @property
    def changes_pictures(self) -> bool:
        return self._quality == "quality-tradeoff"

    @property
    def _quality(self) -> str:
        return class_of(self.settings.backend, self.settings.allow_low_precision)

    def prepare(self, model: Any) -> None:
        """Check that the backend is there, note whom this replaces, and tell what it means."""
        self.settings.require_installed()
        earlier = lever_of(model, ATTENTION_KEY)
        if isinstance(earlier, AttentionAttachment):
            self.replaced = f"{NAME} ({earlier.settings.backend})"
        send_text(self.node_id, f"{self.settings.backend}: {self._quality}")

    def wrappers(self) -> list[tuple[str, Any]]:
        """One opens and closes the run, the other tells it where in the schedule it is."""
        from comfy.patcher_extension import WrappersMP

        found = super().wrappers()
        if not self.settings.whole_range:
            found.append((WrappersMP.APPLY_MODEL, self.apply_model))
        return found

    def _open(self, sampling: Sampling) -> PlacedRun | FarAttention:
        split = split_of(sampling.options)
        if split is not None:
            report = AttentionReport(settings=asdict(self.settings))
            report.came_from(self.resolved)
            report.took_the_place_of(self.replaced)
            return FarAttention(split, self.settings, report, _steps_of(sampling))
        memory = _read_choices() if self.settings.backend == "auto" else {}
        run = PlacedRun(self.settings, sampling.options, memory)
        run.steps = _steps_of(sampling)
        run.report.came_from(self.resolved)
        run.report.took_the_place_of(self.replaced)
        patcher = sampling.patcher
        run.check(patcher.load_device, patcher.model.get_dtype_inference())
        return run

    def _put_in(self, run: PlacedRun | FarAttention, options: dict[str, Any]) -> None:
        run.put_in(options)

    def _take_out(self, run: PlacedRun | FarAttention, options: dict[str, Any]) -> None:
        run.take_out(options)

    def _close(self, run: PlacedRun | FarAttention, finished: bool) -> None:
        self._show(run.close(finished), run.steps)
        if run.memory != run.known:
            _write_choices(dict(run.memory))

    def _show(self, report: AttentionReport, steps: int) -> None:
        """Say on the node who computed how many calls."""
        if self.shown is None:
            return
        title, _, said = report.sentence().partition(": ")
        plain = RunReport(title, steps=steps, explanation=said.removesuffix("."))
        plain.outcome = report.outcome
        counts: Counter[str] = Counter()
        for row in report.rows:
            counts[row.backend] += row.calls
        self.shown.tell(plain, dict(counts.most_common()))

    def _not_opened(self, error: Exception) -> None:
        log.warning("Attention Backend could not start.", exc_info=True)
        self.last_report = AttentionReport(settings=asdict(self.settings))
        self.last_report.fault(error)

    def _not_closed(
        self, run: PlacedRun | FarAttention, error: Exception, device: torch.device
    ) -> None:
        log.warning("Attention Backend could not finish its report.", exc_info=True)
        run.report.fault(error)

    def apply_model(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """APPLY_MODEL: see ``ModelCall``."""
        call = ModelCall(executor, args, kwargs)
        run: AttentionRun | None = call.run_of(ATTENTION_KEY)
        if run is not None:
            try:
                sigma = float(sampler_sigma(call.options).flatten()[0])
                run.begin_evaluation(call.x.device, self._outside(call.model.model_sampling, sigma))
            except Exception as problem:
                run.give_up(problem)
        return call.execute()

    def _outside(self, sampling: Any, sigma: float) -> str:
        """Why a sigma is not meant; empty when it is."""
        if sigma > float(sampling.percent_to_sigma(self.settings.start_percent)):
            return "it is before start_percent"
        if sigma < float(sampling.percent_to_sigma(self.settings.end_percent)):
            return "it is after end_percent"
        return ""


def _steps_of(sampling: Sampling) -> int:
    """Steps of a run; 0 where whoever began it gave no schedule."""
    return 0 if sampling.sigmas is None else len(sampling.sigmas) - 1


class PlacedRun(AttentionRun):
    """A run and its place in ``transformer_options``, which it may share with other runs.

    Each takes out only itself, and the override that was there before the first of them is there
    again after the last.
    """

    def __init__(
        self, settings: AttentionSettings, options: dict[str, Any], memory: dict[str, Any]
    ) -> None:
        previous = options.get(OVERRIDE)
        if previous is untraced(override):
            # Ours serves whoever stands in the options: behind it is what the run there found.
            previous = getattr(options.get(ATTENTION_KEY), "previous", None)
        super().__init__(settings, previous, memory, prefetch.outliving)
        self.known = dict(memory)
        self.steps = 0
        self._replaced: Any = None

    def put_in(self, options: dict[str, Any]) -> None:
        """Stand in the options from now on."""
        self._replaced = options.get(OVERRIDE)
        step_in(options, ATTENTION_KEY, self)
        options[OVERRIDE] = untraced(override)

    def take_out(self, options: dict[str, Any]) -> None:
        """Stand there no more; calls that still come are the host's."""
        self.closed = True
        if not step_out(options, ATTENTION_KEY, self):
            return  # a run that came later stands there
        left = self._replaced
        if left is untraced(override) and ATTENTION_KEY not in options:
            left = self.previous  # whose override that was is gone
        if left is None:
            options.pop(OVERRIDE, None)
        else:
            options[OVERRIDE] = left


def attach_attention(
    model: Any,
    settings: AttentionSettings,
    node_id: str | None = None,
    resolved: Resolved | None = None,
) -> Any:
    """A clone of a MODEL that samples with an attention backend.

    One that was attached before is replaced: the last one wins. On a server whose operator has
    locked what changes pictures, a quantizing one is left out, and the report says so.

    Parameters
    ----------
    node_id
        The node that is told what the choice means and, after each run, what ran.
    resolved
        Where the settings come from, for the report.

    Raises
    ------
    AccelerationError
        When the input is no MODEL, or the backend's package is not installed.
    """
    return put(model, ATTENTION_KEY, AttentionAttachment(settings, node_id, resolved))


def device_here() -> DeviceFacts | None:
    """Where the host computes, None where it does not say."""
    import comfy.model_management

    try:
        return facts_of(comfy.model_management.get_torch_device())
    except Exception:
        log.debug("The host's device is not known.", exc_info=True)
        return None


def choices_file() -> Path:
    """Where auto's choices are kept, in the host's user folder. Deleting it measures anew."""
    return remembered.choices_file("attention_choices")


def _read_choices() -> dict[str, dict[str, Any]]:
    return remembered.read_choices(choices_file())


def _write_choices(memory: dict[str, dict[str, Any]]) -> None:
    remembered.write_choices(choices_file(), memory)

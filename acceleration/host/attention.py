"""The Attention Backend on a MODEL: an override for the length of one sampling run."""

from __future__ import annotations

import json
import logging
import os
import threading
from dataclasses import asdict
from pathlib import Path
from typing import Any

from ..attention import AttentionReport, AttentionRun, AttentionSettings, class_of
from ..errors import AccelerationError
from ..sampling.gates import untraced
from ..settings.environment import lossy_locked
from ..settings.sections import Resolved
from . import prefetch
from .levers import Reports, argument, lever_of, put, require_model
from .live_report import send_text
from .locking import SwitchedOff

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
    return run.attend(function, args, kwargs)


class AttentionAttachment(Reports):
    """The lever. The run travels in the run's own ``transformer_options``."""

    name = NAME

    def __init__(
        self,
        settings: AttentionSettings,
        replaced: str | None,
        node_id: str | None,
        resolved: Resolved | None = None,
    ) -> None:
        self.settings = settings
        self.resolved = resolved
        self.replaced = replaced
        self.node_id = node_id
        super().__init__()

    def wrappers(self) -> list[tuple[str, Any]]:
        """One opens and closes the run, the other tells it where in the schedule it is."""
        from comfy.patcher_extension import WrappersMP

        found: list[tuple[str, Any]] = [(WrappersMP.OUTER_SAMPLE, self.outer_sample)]
        if not self.settings.whole_range:
            found.append((WrappersMP.APPLY_MODEL, self.apply_model))
        return found

    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """OUTER_SAMPLE: the override is there from here to the end, whatever happens inside."""
        guider = executor.class_obj
        options = guider.model_options.setdefault("transformer_options", {})
        try:
            run = self._open(guider.model_patcher, options)
        except AccelerationError:
            raise
        except Exception as problem:
            log.warning("Attention Backend could not start.", exc_info=True)
            self.last_report = AttentionReport(asdict(self.settings))
            self.last_report.fault(problem)
            return executor(*args, **kwargs)
        finished = False
        try:
            output = executor(*args, **kwargs)
            finished = True
            return output
        finally:
            run.take_out(options)
            self._tell(run, finished)

    def _open(self, patcher: Any, options: dict[str, Any]) -> PlacedRun:
        memory = _read_choices() if self.settings.backend == "auto" else {}
        run = PlacedRun(self.settings, options, memory)
        if self.resolved is not None:
            run.report.origins = dict(self.resolved.origins)
            for notice in self.resolved.notices:
                run.report.notice(notice)
        if self.replaced:
            run.report.notice(
                f"this node replaced {self.replaced}, set on the same model before it"
            )
        run.check(patcher.load_device, patcher.model.get_dtype_inference())
        run.put_in(options)
        return run

    def _tell(self, run: PlacedRun, finished: bool) -> None:
        """Report a run that is over; sampling has its picture, whatever happens here."""
        self.last_report = run.report
        try:
            self.last_report = run.close(finished)
            log.info("%s", self.last_report.sentence())
            send_text(self.node_id, self.last_report.sentence())
            if run.memory != run.known:
                _write_choices(dict(run.memory))
        except Exception as problem:
            log.warning("Attention Backend could not finish its report.", exc_info=True)
            run.report.fault(problem)

    def apply_model(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """APPLY_MODEL: ``(x, t, c_concat, c_crossattn, control, transformer_options, …)``."""
        options = argument(args, kwargs, 5, "transformer_options", {})
        run: AttentionRun | None = options.get(ATTENTION_KEY)
        if run is not None and "sigmas" in options:
            try:
                sampling = executor.class_obj.model_sampling
                outside = self._outside(sampling, float(options["sigmas"].flatten()[0]))
                run.begin_evaluation(args[0].device, outside)
            except Exception as problem:
                run.give_up(problem)
        return executor(*args, **kwargs)

    def _outside(self, sampling: Any, sigma: float) -> str:
        """Why a sigma is not meant; empty when it is."""
        if sigma > float(sampling.percent_to_sigma(self.settings.start_percent)):
            return "it is before start_percent"
        if sigma < float(sampling.percent_to_sigma(self.settings.end_percent)):
            return "it is after end_percent"
        return ""


class PlacedRun(AttentionRun):
    """A run and its place in ``transformer_options``, which it may share with other runs.

    Runs within runs (a node that samples while another one does) and runs of threads with one
    guider come and go in any order. Each takes out only itself, and what was there before the
    first of them is there again after the last.
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
        self._outer: PlacedRun | None = None
        self._replaced: Any = None

    def put_in(self, options: dict[str, Any]) -> None:
        """Stand in the options from now on."""
        with _placing:
            self._outer, self._replaced = options.get(ATTENTION_KEY), options.get(OVERRIDE)
            options[ATTENTION_KEY], options[OVERRIDE] = self, untraced(override)

    def take_out(self, options: dict[str, Any]) -> None:
        """Stand there no more; calls that still come are the host's."""
        with _placing:
            self.closed = True
            if options.get(ATTENTION_KEY) is not self:
                return  # a run that came later stands there, and will find this one closed
            first = self
            while first._outer is not None and first._outer.closed:
                first = first._outer
            _set(options, ATTENTION_KEY, first._outer)
            left = first._replaced
            if first._outer is None and left is untraced(override):
                left = None
            _set(options, OVERRIDE, left)


_placing = threading.Lock()
"""Held while a run steps into options or out of them, never while anything is computed."""


def _set(options: dict[str, Any], key: str, value: Any) -> None:
    if value is None:
        options.pop(key, None)
    else:
        options[key] = value


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
    require_model(model, NAME)
    quality = class_of(settings.backend, settings.allow_low_precision)
    locked = lossy_locked() if quality == "quality-tradeoff" else None
    if locked is not None:
        log.info("%s: %s.", NAME, locked)
        return put(model, ATTENTION_KEY, SwitchedOff(NAME, settings, locked))
    settings.require_installed()
    earlier = lever_of(model, ATTENTION_KEY)
    replaced = None
    if isinstance(earlier, AttentionAttachment):
        replaced = f"{NAME} ({earlier.settings.backend})"
    send_text(node_id, f"{settings.backend}: {quality}")
    lever = AttentionAttachment(settings, replaced, node_id, resolved)
    return put(model, ATTENTION_KEY, lever)


def choices_file() -> Path:
    """Where auto's choices are kept, in the host's user folder. Deleting it measures anew."""
    import folder_paths

    folder = Path(folder_paths.get_user_directory()) / "dit_acceleration"
    return folder / "attention_choices.json"


def _read_choices() -> dict[str, dict[str, Any]]:
    path = choices_file()
    if not path.exists():
        return {}
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        return {str(k): dict(v) for k, v in found.items()}
    except (OSError, ValueError, TypeError, AttributeError) as error:
        log.warning("The remembered attention choices %s are ignored: %s", path.name, error)
        return {}


def _write_choices(memory: dict[str, dict[str, Any]]) -> None:
    """Write choices; a half-written file never takes the place of a whole one."""
    path = choices_file()
    # Two runs may end at once.
    part = path.with_suffix(f".{os.getpid()}-{threading.get_ident()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another run may have added to it meanwhile.
        part.write_text(json.dumps({**_read_choices(), **memory}, indent=1), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        log.warning("Attention choices could not be remembered: %s", error)

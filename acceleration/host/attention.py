"""The Attention Backend on a MODEL: an override for the length of one sampling run."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

from ..attention import AttentionReport, AttentionRun, AttentionSettings, class_of
from ..configuration import Resolved
from ..environment import lossy_locked
from ..gates import untraced
from .levers import argument, lever_of, put, require_model
from .live import send_text
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


class AttentionAttachment:
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
        self.last_report: AttentionReport | None = None

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
        previous = options.get(OVERRIDE)
        memory = _read_choices() if self.settings.backend == "auto" else {}
        known = dict(memory)
        run = AttentionRun(self.settings, previous, memory)
        if self.resolved is not None:
            run.report.origins = dict(self.resolved.origins)
            for notice in self.resolved.notices:
                run.report.notice(notice)
        if self.replaced:
            run.report.notice(
                f"this node replaced {self.replaced}, set on the same model before it"
            )
        patcher = guider.model_patcher
        run.check(patcher.load_device, patcher.model.get_dtype_inference())
        options[ATTENTION_KEY], options[OVERRIDE] = run, untraced(override)
        finished = False
        try:
            output = executor(*args, **kwargs)
            finished = True
            return output
        finally:
            options.pop(ATTENTION_KEY, None)
            if previous is None:
                options.pop(OVERRIDE, None)
            else:
                options[OVERRIDE] = previous
            self.last_report = run.close(finished)
            log.info("%s", self.last_report.sentence())
            send_text(self.node_id, self.last_report.sentence())
            if memory != known:
                _write_choices(memory)

    def apply_model(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """APPLY_MODEL: ``(x, t, c_concat, c_crossattn, control, transformer_options, …)``."""
        options = argument(args, kwargs, 5, "transformer_options", {})
        run: AttentionRun | None = options.get(ATTENTION_KEY)
        if run is not None and "sigmas" in options:
            sampling = executor.class_obj.model_sampling
            sigma = float(options["sigmas"].flatten()[0])
            outside = ""
            if sigma > float(sampling.percent_to_sigma(self.settings.start_percent)):
                outside = "it is before start_percent"
            elif sigma < float(sampling.percent_to_sigma(self.settings.end_percent)):
                outside = "it is after end_percent"
            run.begin_evaluation(args[0].device, outside)
        return executor(*args, **kwargs)


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
    part = path.with_suffix(".part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Another run may have added to it meanwhile.
        part.write_text(json.dumps({**_read_choices(), **memory}, indent=1), encoding="utf-8")
        part.replace(path)
    except OSError as error:
        log.warning("Attention choices could not be remembered: %s", error)

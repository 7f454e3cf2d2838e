"""The operator's lock: levers that change pictures are not attached on a locked server."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

from ..policies.base import Technique
from ..report import SWITCHED_OFF, RunReport
from ..settings.environment import lossy_locked
from ..settings.sections import Resolved
from .caching import KEY, attach
from .levers import Reports, put, require_model

log = logging.getLogger("dit_acceleration")


class SwitchedOff(Reports):
    """A lever that does nothing but say why; it keeps the settings that were asked for."""

    def __init__(self, name: str, settings: Any, why: str) -> None:
        super().__init__()
        self.name = name
        self.settings = settings
        self.last_report = RunReport(name, {}, explanation=why, outcome=SWITCHED_OFF)

    def wrappers(self) -> list[tuple[str, Callable[..., Any]]]:
        """None: the model samples as if the node were not there."""
        return []


def attach_lossy(
    model: Any,
    technique: Technique,
    node_id: str | None = None,
    resolved: Resolved | None = None,
    second: Technique | None = None,
) -> Any:
    """As ``attach``; on a server whose operator has locked such levers, the model unaccelerated.

    A lock is never an error: the workflow runs, and the report says what was left out.
    """
    why = lossy_locked()
    if why is None:
        return attach(model, technique, node_id, resolved, second)
    require_model(model, technique.name)
    log.info("%s: %s.", technique.name, why)
    return put(model, KEY, SwitchedOff(technique.name, technique.settings, why))

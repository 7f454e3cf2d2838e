"""Sends what a run does to the web page, while it runs, for the node that set it up.

Two ways: an event with everything for our JavaScript (``web/live``), and the host's own progress
text for clients without it. Both go only to the client that queued the prompt.
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from ..parallel import RankReport
from ..report import EvaluationRecord, RunReport
from ..sampling.listener import Guarded, Listener, Look, Strip

log = logging.getLogger("dit_acceleration")

EVENT = "dit_acceleration.progress"
PRESETS_EVENT = "dit_acceleration.presets"
VERSION = 1
"""Of both messages' fields, which docs/api.md describes. New fields do not change it; a field that
is gone or means something else does."""

# An event holds the whole strip, so that a page that is reloaded in mid-run misses nothing.
EVENT_SECONDS = 0.15
TEXT_SECONDS = 1.0
EVENT_STEPS = 4
QUIET_SECONDS = 20.0
"""From one event to the next, whichever comes first: five in 20 steps, and more of them only where
a page would stand still otherwise. With those at the end, the others of Progressive Resolution and
the table of presets 20 steps send ten at most, or one in ten seconds where they take longer."""

MOST_SHARE = 0.01
"""Share of the run's time that telling of it may take: very long strips are sent less often."""


class LiveNode:
    """The node that shows a MODEL's runs. Outlives prompts, as the host remembers outputs.

    Parameters
    ----------
    node_id
        Id of the node in the graph that is run.
    """

    def __init__(self, node_id: str) -> None:
        self.node_id = str(node_id)
        self._prompt: str | None = None
        self._runs = 0

    @classmethod
    def of(cls, node_id: str | None) -> LiveNode | None:
        """The node with an id; None for a MODEL that no node of a graph made."""
        return None if node_id is None else cls(node_id)

    def tell(self, report: RunReport, counts: dict[str, int] | None = None) -> None:
        """Show what there is to say of a run whose evaluations are not this node's.

        ``counts`` are drawn as bars, by their names.
        """
        Guarded(self.listener(counts)).ended(report)

    def listener(
        self,
        counts: dict[str, int] | None = None,
        seldom: bool = False,
        ranks: Sequence[RankReport] = (),
    ) -> Listener | None:
        """For the run that begins now; None when nobody is there to be told.

        ``seldom`` is for a lever whose evaluations another one tells of as well: only the first one
        and the first at full size. ``ranks`` are told as they are by then.
        """
        try:
            return self._listener(counts or {}, seldom, ranks)
        except Exception:
            log.warning("There is no live report of this run.", exc_info=True)
            return None

    def _listener(
        self, counts: dict[str, int], seldom: bool, ranks: Sequence[RankReport]
    ) -> Listener | None:
        server = running_server()
        if server is None or server.client_id is None:
            return None
        heading = self._heading(server)
        if heading["prompt_id"] != self._prompt:
            self._prompt, self._runs = heading["prompt_id"], 0
        self._runs += 1
        return LiveRun(server, {**heading, "run": self._runs, "counts": counts}, seldom, ranks)

    def send(self, event: str, data: dict[str, Any]) -> None:
        """Tell the client that queued the prompt something else of this node; never an error."""
        try:
            server = running_server()
            if server is not None and server.client_id is not None:
                server.send_sync(event, {**self._heading(server), **data}, server.client_id)
        except Exception:
            log.warning("Node %s could not be told of %s.", self.node_id, event, exc_info=True)

    def _heading(self, server: Any) -> dict[str, Any]:
        prompt = _running_prompt(server)
        return {
            "version": VERSION,
            "node": self.node_id,
            "prompt_id": prompt,
            "workflow": _workflow_id(server, prompt),
        }


class LiveRun:
    """Tells a client of one run, at most every ``EVENT_SECONDS``, and always of its end."""

    def __init__(
        self, server: Any, heading: dict[str, Any], seldom: bool, ranks: Sequence[RankReport]
    ) -> None:
        self._server, self._ranks = server, ranks
        # Kept: the server's client is that of the prompt it runs, which this run is part of.
        self._client = server.client_id
        self._heading = heading
        self._strip = Strip()
        self._event_due = self._text_due = 0.0
        self._seldom = seldom
        self._told: EvaluationRecord | None = None
        """The last evaluation that was told."""
        self._quiet_until = 0.0

    def began(self, report: RunReport) -> None:
        """The page shows this run now, and no longer the one before it."""
        self._send_event(report, "")

    def evaluated(self, record: EvaluationRecord, look: Look) -> None:
        self._strip.add(record)
        now = time.perf_counter()
        if now < self._event_due or not self._is_news(record, now):
            return
        self._told = record
        self._quiet_until = now + QUIET_SECONDS
        # Own work only: on a busy machine the clock would count what others do in between.
        began = time.thread_time()
        report = look()
        self._send_event(report, "")
        spent = time.thread_time() - began
        self._event_due = now + max(EVENT_SECONDS, spent / MOST_SHARE)
        if now >= self._text_due:
            self._send_text(
                f"{report.technique}: {report.computed} computed, {report.skipped} skipped, "
                f"step {self._strip.step + 1} of {report.steps}"
            )
            self._text_due = now + TEXT_SECONDS

    def _is_news(self, record: EvaluationRecord, now: float) -> bool:
        if self._told is None:
            return True
        if self._seldom:
            return record.full and not self._told.full
        return record.step >= self._told.step + EVENT_STEPS or now >= self._quiet_until

    def ended(self, report: RunReport) -> None:
        sentence = report.sentence()
        self._send_event(report, sentence)
        self._send_text(sentence)

    def _send_event(self, report: RunReport, sentence: str) -> None:
        data = {
            **self._heading,
            **self._strip.as_dict(),
            "technique": report.technique,
            "sampler": report.sampler,
            "steps": report.steps,
            "computed": report.computed,
            "skipped": report.skipped,
            "seconds": report.seconds,
            "seconds_saved": report.seconds_saved(),
            "promised": report.promised,
            "stages": [asdict(stage) for stage in report.stages()],
            "switch": report.switch,
            "residual_bytes": report.residual_peak_bytes,
            "residual_placement": report.residual_placement,
            "ranks": [asdict(rank) for rank in self._ranks],
            "outcome": report.outcome,
            "sentence": sentence,
        }
        self._server.send_sync(EVENT, data, self._client)

    def _send_text(self, text: str) -> None:
        self._server.send_progress_text(text, self._heading["node"], self._client)


def send_text(node_id: str | None, text: str) -> None:
    """Show a line on a node, to the client that queued the prompt; nobody there is no error."""
    try:
        server = running_server()
        if node_id is not None and server is not None and server.client_id is not None:
            server.send_progress_text(text, str(node_id), server.client_id)
    except Exception:
        log.warning("Node %s could not be told: %s", node_id, text, exc_info=True)


def running_server() -> Any:
    """The running server, or None where ComfyUI's classes are used without one."""
    module = sys.modules.get("server")
    return getattr(getattr(module, "PromptServer", None), "instance", None)


def _running_prompt(server: Any) -> str | None:
    from comfy_execution.utils import get_executing_context

    context = get_executing_context()
    prompt = context.prompt_id if context is not None else None
    return prompt or getattr(server, "last_prompt_id", None)


def _workflow_id(server: Any, prompt: str | None) -> str | None:
    """Id of the workflow that a prompt was made from, if its client said so.

    Node ids repeat from workflow to workflow, and the page may show another one by now. The host
    does not run a node again whose output it remembers, so this is asked of the queue.
    """
    running, _ = server.prompt_queue.get_current_queue_volatile()
    for item in running:
        if item[1] == prompt:
            workflow = (item[3].get("extra_pnginfo") or {}).get("workflow") or {}
            found: str | None = workflow.get("id")
            return found
    return None

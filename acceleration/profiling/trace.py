"""Where the time of a profiled run went, read from the profiler's own trace.

The trace is the Chrome format that ``torch.profiler`` writes and Perfetto opens: events with a
name, a category, a start and a duration in µs. Reading the file instead of the profiler's objects
needs no private interface, and figures and file cannot disagree.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

RANGE = "dit_acceleration: "
"""Every range of ours begins with this, followed by its name."""
EVALUATION, BLOCK, DECISION = "evaluation", "block", "decision"

ATTENTION, LINEAR, NORM = "attention", "linear", "norm"
OFFLOAD, CACHING, OTHER, SAMPLER, GAPS = (
    "offload copies",
    "caching decisions",
    "other",
    "sampler",
    "gaps",
)
PARTS = (ATTENTION, LINEAR, NORM, OFFLOAD, CACHING, OTHER, SAMPLER, GAPS)

# Names of operators and of kernels. Attention of plain matrix products is known by the batched
# ones, which linear layers do not use.
PATTERNS = (
    (ATTENTION, re.compile(r"attention|attn|flash|fmha|xformers|softmax|bmm|einsum", re.I)),
    (NORM, re.compile(r"norm(?!al)", re.I)),
    (LINEAR, re.compile(r"linear|addmm|::_?(scaled_|int_)?mm\b|gemm|conv(?!ert)", re.I)),
)
HOST_COPY = re.compile(r"Memcpy (HtoD|DtoH)", re.I)

OPERATORS = {"cpu_op"}
LAUNCHES = {"cuda_runtime", "cuda_driver"}
ANNOTATIONS = {"user_annotation"}
DEVICE_WORK = {"kernel", "gpu_memcpy", "gpu_memset"}

Event = Mapping[str, Any]


@dataclass
class Operation:
    """All calls of one operator."""

    name: str
    calls: int = 0
    host_ms: float = 0.0
    """Without the operators that it called."""
    device_ms: float = 0.0

    @property
    def ms(self) -> float:
        """Time on the device where that did the work, else on the processor."""
        return self.device_ms or self.host_ms


@dataclass
class Breakdown:
    """Time of the traced evaluations, in ms over all of them."""

    evaluations: int = 0
    total_ms: float = 0.0
    """From the begin of the first to the end of the last."""
    on_device: bool = False
    """Whether parts are times of a GPU; else of the processor."""
    parts: dict[str, float] = field(default_factory=dict)
    operations: list[Operation] = field(default_factory=list)

    def as_dict(self) -> dict[str, Any]:
        """Everything as JSON-ready data."""
        return {
            "evaluations": self.evaluations,
            "total_ms": self.total_ms,
            "measured_on": "GPU" if self.on_device else "CPU",
            "parts": [
                {"name": name, "ms": ms, "share": ms / (self.total_ms or 1.0)}
                for name, ms in self.parts.items()
            ],
            "top": [
                {"name": o.name, "calls": o.calls, "host_ms": o.host_ms, "device_ms": o.device_ms}
                for o in self.operations
            ],
        }


def part_of(name: str) -> str | None:
    """The part that an operator or a kernel belongs to by its name, None if it tells nothing."""
    return next((part for part, pattern in PATTERNS if pattern.search(name)), None)


def break_down(events: Iterable[Event]) -> Breakdown:
    """Time by part and by operator.

    Where a GPU worked, its kernels and copies count, each for what launched it, and ``gaps`` is
    the time in which it did nothing. Else operators count with the time of their own, and ``gaps``
    is the time between them.

    Parameters
    ----------
    events
        ``traceEvents`` of a trace.
    """
    spans = [e for e in events if e.get("ph") == "X" and "dur" in e]
    ranges = [e for e in spans if _is_range(e, EVALUATION)]
    if not ranges:
        return Breakdown()
    window = (min(e["ts"] for e in ranges), max(e["ts"] + e["dur"] for e in ranges))
    host = _HostTime(window)
    for thread in {(e["pid"], e["tid"]) for e in ranges}:
        host.walk([e for e in spans if (e["pid"], e["tid"]) == thread])
    device = _launched_within(window, spans)
    if device:
        parts, total = _device_parts(device, host, window)
    else:
        parts, total = host.parts, window[1] - window[0]
    return Breakdown(
        evaluations=len(ranges),
        total_ms=total / 1000,
        on_device=bool(device),
        parts={name: parts.get(name, 0.0) / 1000 for name in PARTS},
        operations=sorted(
            # Next to times of the GPU those of the processor would mean something else.
            (o for o in host.operations.values() if o.device_ms or not device),
            key=lambda o: -o.ms,
        ),
    )


def _launched_within(window: tuple[float, float], spans: Sequence[Event]) -> list[Event]:
    """Work of the device, without what was launched before or after the window."""
    outside = {
        _correlation(e)
        for e in spans
        if e.get("cat") in LAUNCHES and not window[0] <= e["ts"] <= window[1]
    } - {None}
    return [e for e in spans if e.get("cat") in DEVICE_WORK and _correlation(e) not in outside]


def _correlation(event: Event) -> int | None:
    """What a launch and the work that it launched have in common."""
    found: int | None = event.get("args", {}).get("correlation")
    return found


def _is_range(event: Event, kind: str = "") -> bool:
    name = str(event["name"])
    return event.get("cat") in ANNOTATIONS and name.startswith(RANGE + kind)


@dataclass
class _Open:
    """An event whose end has not come yet."""

    end: float
    part: str | None
    """What it and all below it belong to, None if that is not settled."""
    inside: bool
    """Whether it lies in an evaluation."""
    own: str
    """The part that its own time counts for."""
    operation: Operation | None


class _HostTime:
    """Walks the events of a thread, which are nested, and gives each its own time."""

    def __init__(self, window: tuple[float, float]) -> None:
        self.parts: dict[str, float] = {}
        self.operations: dict[str, Operation] = {}
        self.launched: dict[int, _Open] = {}
        """Work of the device by its correlation, and what was open when it was launched."""
        self._window = window

    def walk(self, events: Sequence[Event]) -> None:
        """Events of one thread, in any order."""
        begin, end = self._window
        kinds = OPERATORS | LAUNCHES | ANNOTATIONS
        chosen = [
            e
            for e in events
            if e.get("cat") in kinds and begin <= e["ts"] and e["ts"] + e["dur"] <= end
        ]
        outside = _Open(end, None, False, SAMPLER, None)
        stack, clock = [outside], begin
        for event in sorted(chosen, key=lambda e: (e["ts"], -e["dur"])):
            clock = self._close(stack, clock, event["ts"])
            self._charge(stack[-1], event["ts"] - clock)
            clock = max(clock, event["ts"])
            stack.append(self._opened(event, stack))
        self._charge(outside, end - self._close(stack, clock, end))

    def _close(self, stack: list[_Open], clock: float, until: float) -> float:
        while len(stack) > 1 and stack[-1].end <= until:
            closed = stack.pop()
            self._charge(closed, closed.end - clock)
            clock = max(clock, closed.end)
        return clock

    def _charge(self, to: _Open, duration: float) -> None:
        duration = max(duration, 0.0)
        self.parts[to.own] = self.parts.get(to.own, 0.0) + duration
        if to.operation is not None:
            to.operation.host_ms += duration / 1000

    def _opened(self, event: Event, stack: list[_Open]) -> _Open:
        parent = stack[-1]
        end = min(event["ts"] + event["dur"], parent.end)
        if event["cat"] in ANNOTATIONS:
            if not _is_range(event):
                return _Open(end, parent.part, parent.inside, parent.own, None)
            model = _is_range(event, EVALUATION) or _is_range(event, BLOCK)
            part = parent.part or (None if model else CACHING)
            return _Open(end, part, parent.inside or model, part or GAPS, None)
        if event["cat"] in LAUNCHES:
            opened = _Open(end, parent.part, parent.inside, parent.own, parent.operation)
            correlation = _correlation(event)
            if correlation is not None:
                self.launched[correlation] = opened
            return opened
        name = str(event["name"])
        operation = self.operations.setdefault(name, Operation(name))
        operation.calls += 1
        part = parent.part or part_of(name)
        own = part or (OTHER if parent.inside else SAMPLER)
        return _Open(end, part, parent.inside, own, operation)


def _device_parts(
    work: Sequence[Event], host: _HostTime, window: tuple[float, float]
) -> tuple[dict[str, float], float]:
    """Time of the device by part, and the length of the window, both in µs."""
    parts: dict[str, float] = {}
    end = max(window[1], max(e["ts"] + e["dur"] for e in work))
    for event in work:
        correlation = _correlation(event)
        launch = None if correlation is None else host.launched.get(correlation)
        part = _device_part(event, launch)
        parts[part] = parts.get(part, 0.0) + event["dur"]
        if launch is not None and launch.operation is not None:
            launch.operation.device_ms += event["dur"] / 1000
    parts[GAPS] = end - window[0] - _busy(work, window[0], end)
    return parts, end - window[0]


def _device_part(event: Event, launch: _Open | None) -> str:
    if launch is not None and launch.part == CACHING:
        return CACHING
    if HOST_COPY.search(event["name"]):
        return OFFLOAD
    settled = (launch.part if launch is not None else None) or part_of(event["name"])
    if settled is not None:
        return settled
    return OTHER if launch is None or launch.inside else SAMPLER


def _busy(work: Sequence[Event], begin: float, end: float) -> float:
    """Length of the union of all intervals, as streams overlap."""
    total, reached = 0.0, begin
    for event in sorted(work, key=lambda e: e["ts"]):
        start, stop = max(event["ts"], reached), min(event["ts"] + event["dur"], end)
        if stop > start:
            total += stop - start
            reached = stop
    return total

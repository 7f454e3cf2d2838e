"""One sampling run: every attention call of it goes through here and is counted."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict
from typing import Any

import torch

from ..errors import AccelerationError
from ..lack_of_memory import can_be_freed, is_out_of_memory
from .call import Arguments
from .device import is_capturing
from .planner import DeviceState, Host, HostCall, Plan, Planner
from .race import Memory
from .registry import BACKENDS, EXPERIMENTAL
from .report import AttentionReport
from .settings import AttentionSettings

FAILED = "this node failed on it"
"""The reason of calls in which something went wrong in this pack; the report says what."""
CAPTURED = (
    "ComfyUI records this block as a CUDA graph, in which a kernel would stay after this run; "
    "start ComfyUI with --disable-cuda-graphs to choose one"
)


class AttentionRun:
    """All attention of one sampling run.

    Parameters
    ----------
    settings
        What was asked.
    previous
        An override that was there before; it takes the host's place where we do not act.
    memory
        Choices of earlier runs, read and added to.
    outliving
        Opens the context in which tensors are made that the network itself does not make.
    """

    def __init__(
        self,
        settings: AttentionSettings,
        previous: Host | None = None,
        memory: Memory | None = None,
        outliving: Callable[[], AbstractContextManager[Any]] = nullcontext,
    ) -> None:
        self.settings = settings
        self.report = AttentionReport(settings=asdict(settings))
        self.memory: Memory = {} if memory is None else memory
        self._planner = Planner(settings, self.report, self.memory, previous is None)
        self.previous = previous
        self._outliving = outliving
        self.closed = False
        """Whether the run is over; a call that comes late is the host's and is not counted."""
        self.given_up = False
        self._thread = threading.local()
        self._devices: dict[torch.device, DeviceState] = {}
        self._lock = threading.Lock()
        self._began = time.perf_counter()
        self._picky = not settings.all_blocks or settings.attention_kind != "all"
        if settings.kernel != settings.backend:
            self.report.notice(
                f"{settings.backend} is a choice of older versions; {settings.kernel} takes its "
                "place"
            )
        if previous is not None:
            name = getattr(previous, "__qualname__", type(previous).__qualname__)
            self.report.notice(
                f"another attention override ({name}) was on this model; it serves the calls that "
                "this node leaves alone"
            )

    def __deepcopy__(self, memo: dict[int, Any]) -> AttentionRun:
        # The run travels in transformer_options, which other packs copy.
        return self

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Try the chosen backend before sampling starts; see ``Planner.check``."""
        self._planner.check(device, dtype)

    def begin_evaluation(self, device: torch.device, outside: str) -> None:
        """Say whether the evaluation that now begins on a device is meant (empty) or why not."""
        self._state(device).outside = outside

    def give_up(self, problem: Exception) -> None:
        """Leave all calls to the host from now on, because something went wrong in this pack."""
        self.given_up = True
        self.report.fault(problem)

    def attend(self, host: Host, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """Compute one attention call.

        What goes wrong here never harms a picture: the host's function computes the call, and the
        report says so once.

        Parameters
        ----------
        host
            The host's own function for it, which would have been called without us.

        Raises
        ------
        AccelerationError
            When the chosen backend cannot take it and ``on_unsupported`` is ``error``.
        """
        if self._asking():
            # The override that was there before us asks us in turn.
            return host(*args, **kwargs)
        if self.closed:
            return self._ask_host(host, args, kwargs)
        try:
            out = self._served(host, args, kwargs)
        except Exception as problem:
            if self._must_pass(problem):
                raise
            self.report.fault(problem)
            self._pass(None, FAILED)
            out = None
        return self._ask_host(host, args, kwargs) if out is None else out

    def _served(
        self, host: Host, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> torch.Tensor | None:
        """The result, or None for a call that is the host's."""
        if self.given_up:
            self._pass(None, FAILED)
            return None
        try:
            a = Arguments.of(args, kwargs)
        except (KeyError, ValueError, TypeError):
            self._pass(None, "its arguments are not understood")
            return None
        state = self._devices.get(a.q.device) or self._state(a.q.device)
        left = state.outside or (self._not_meant(a, kwargs) if self._picky else "")
        if left:
            self._pass(state, left)
            return None
        if is_capturing(a.q.device):
            self._pass(state, CAPTURED)
            return None
        key = a.signature(kwargs)
        plan = state.plans.get(key)
        if plan is None:
            plan = state.plans[key] = self._plan(state, a, HostCall(host, args, kwargs))
        while plan.backend is not None:
            try:
                out = plan.compute(a)
            except Exception as problem:
                if self._must_pass(problem):
                    raise
                self._planner.failed(state, plan, problem)
            else:
                plan.calls += 1
                return out
            # Not before: the error's traceback kept the kernel's tensors alive.
            plan = state.plans[key] = self._plan(state, a, HostCall(host, args, kwargs))
        plan.calls += 1
        return None

    def _plan(self, state: DeviceState, a: Arguments, asked: HostCall) -> Plan:
        """A plan; where making one goes wrong, that calls like this one are the host's.

        It tries kernels and races them. A host that records what a network allocates must not see
        that: it happens in one evaluation only, and what kernels keep from their first call on
        (workspaces) outlives the recorded part.
        """
        try:
            with self._outliving():
                return self._planner.plan(state, a, asked)
        except Exception as problem:
            if self._must_pass(problem):
                raise
            self.report.fault(problem)
            return Plan(reason=FAILED)

    @staticmethod
    def _must_pass(problem: Exception) -> bool:
        """Whether an error is for others: a sentence for the person, or memory they can free."""
        if isinstance(problem, AccelerationError):
            return True
        return is_out_of_memory(problem) and can_be_freed()

    def _pass(self, state: DeviceState | None, reason: str) -> None:
        passed = (state or self._state(torch.device("cpu"))).passed
        passed[reason] = passed.get(reason, 0) + 1

    def _ask_host(self, host: Host, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        if not self.report.host_function:
            self.report.host_function = HostCall(host, args, kwargs).name
        if self.previous is None:
            return host(*args, **kwargs)
        self._thread.asking = True
        try:
            return self.previous(host, *args, **kwargs)
        finally:
            self._thread.asking = False

    def _asking(self) -> bool:
        """Whether this thread is inside the override that was there before us."""
        return self.previous is not None and getattr(self._thread, "asking", False)

    def _not_meant(self, a: Arguments, kwargs: dict[str, Any]) -> str:
        """Why a call lies outside the chosen kinds and blocks; empty when it does not."""
        settings = self.settings
        if settings.attention_kind != "all":
            tokens = 2 if a.heads_first else 1
            same = a.q.ndim > tokens and a.q.shape[tokens] == a.k.shape[tokens]
            if same != (settings.attention_kind == "self"):
                return f"attention_kind is {settings.attention_kind}"
        if not settings.all_blocks:
            index = (kwargs.get("transformer_options") or {}).get("block_index")
            if index is None:
                return "this model does not number its blocks"
            if index < settings.first_block or -1 < settings.last_block < index:
                return "it is outside first_block and last_block"
        return ""

    def _state(self, device: torch.device) -> DeviceState:
        with self._lock:
            if device not in self._devices:
                self._devices[device] = DeviceState.of(device)
            return self._devices[device]

    def close(self, finished: bool) -> AttentionReport:
        """Count up, forget everything else, and return the report."""
        report = self.report
        self.closed = True
        report.seconds = time.perf_counter() - self._began
        report.outcome = "finished" if finished else "interrupted"
        for state in self._devices.values():
            for reason, calls in state.passed.items():
                report.counts["default", reason] += calls
            plans: list[Plan] = [*state.plans.values(), *state.retired]
            for plan in plans:
                if plan.calls:
                    report.counts[plan.name, plan.reason] += plan.calls
        for name in dict.fromkeys(name for name, _ in report.counts):
            if name in BACKENDS and BACKENDS[name].experimental:
                report.notice(f"{name} is {EXPERIMENTAL}")
        self._devices.clear()
        return report

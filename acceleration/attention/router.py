"""One sampling run: every attention call of it goes through here and is counted."""

from __future__ import annotations

import threading
import time
from dataclasses import asdict
from typing import Any

import torch

from .call import Arguments
from .planner import DeviceState, Host, HostCall, Plan, Planner
from .race import Memory
from .report import AttentionReport
from .settings import AttentionSettings


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
    """

    def __init__(
        self,
        settings: AttentionSettings,
        previous: Host | None = None,
        memory: Memory | None = None,
    ) -> None:
        self.settings = settings
        self.report = AttentionReport(asdict(settings))
        self.memory: Memory = {} if memory is None else memory
        self._planner = Planner(settings, self.report, self.memory, previous is None)
        self._previous = previous
        self._devices: dict[torch.device, DeviceState] = {}
        self._lock = threading.Lock()
        self._began = time.perf_counter()
        self._picky = not settings.all_blocks or settings.attention_kind != "all"
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

    def attend(self, host: Host, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        """Compute one attention call.

        Parameters
        ----------
        host
            The host's own function for it, which would have been called without us.
        """
        try:
            a = Arguments.of(args, kwargs)
        except (KeyError, ValueError, TypeError):
            return self._leave(None, "its arguments are not understood", host, args, kwargs)
        state = self._devices.get(a.q.device) or self._state(a.q.device)
        left = state.outside or (self._not_meant(a, kwargs) if self._picky else "")
        if left:
            return self._leave(state, left, host, args, kwargs)
        key = a.signature(kwargs)
        plan = state.plans.get(key)
        if plan is None:
            plan = self._planner.plan(state, a, HostCall(host, args, kwargs))
            state.plans[key] = plan
        while plan.backend is not None:
            try:
                out = plan.compute(a)
            except Exception as problem:
                self._planner.failed(state, plan, problem)
                plan = self._planner.plan(state, a, HostCall(host, args, kwargs))
                state.plans[key] = plan
                continue
            plan.calls += 1
            return out
        plan.calls += 1
        return self._ask_host(host, args, kwargs)

    def _leave(
        self,
        state: DeviceState | None,
        reason: str,
        host: Host,
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
    ) -> torch.Tensor:
        passed = (state or self._state(torch.device("cpu"))).passed
        passed[reason] = passed.get(reason, 0) + 1
        return self._ask_host(host, args, kwargs)

    def _ask_host(self, host: Host, args: tuple[Any, ...], kwargs: dict[str, Any]) -> torch.Tensor:
        if not self.report.host_function:
            self.report.host_function = HostCall(host, args, kwargs).name
        if self._previous is not None:
            return self._previous(host, *args, **kwargs)
        return host(*args, **kwargs)

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
        report.seconds = time.perf_counter() - self._began
        report.outcome = "finished" if finished else "interrupted"
        for state in self._devices.values():
            for reason, calls in state.passed.items():
                report.counts["default", reason] += calls
            plans: list[Plan] = [*state.plans.values(), *state.retired]
            for plan in plans:
                if plan.calls:
                    report.counts[plan.name, plan.reason] += plan.calls
        self._devices.clear()
        return report

"""Who serves the calls of one signature: the chosen backend, a fallback, or the race's winner."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch

from ..errors import AccelerationError
from ..lack_of_memory import can_be_freed, is_out_of_memory
from .backend import Backend, Kernel
from .call import Arguments, CallShape, shape_of
from .device import DeviceFacts, facts_of
from .layouts import compute
from .limits import LOW_PRECISION_REFUSED
from .probe import Finding, finding
from .race import Memory, Outcome, memory_key, race, shape_class, starting_order, tolerance_of
from .registry import AUTO, BACKENDS, DEFAULT
from .report import AttentionReport
from .settings import AttentionSettings

MOST_PADDING = 0.01
"""Largest share of zeros behind the keys, for a kernel that counts them. With zero-mean keys a zero
weighs at most as much as the mean key (Jensen), so this bounds the error by about 1 %, which is
what quantizing costs such a kernel anyway."""
KEY_BLOCK = 64
"""Keys a block in SageAttention's Triton kernels (``BLOCK_N``)."""

Host = Callable[..., torch.Tensor]


class HostCall(NamedTuple):
    """A call as the host made it."""

    function: Host
    args: tuple[Any, ...]
    kwargs: dict[str, Any]

    @property
    def name(self) -> str:
        """Name of the host's function."""
        return str(getattr(self.function, "__name__", type(self.function).__name__))


@dataclass
class Plan:
    """Who serves the calls of one signature. No backend means the host's own function."""

    call: CallShape | None = None
    backend: Backend | None = None
    kernel: Kernel | None = None
    grouped: bool = False
    """Whether the kernel takes fewer key than query heads."""
    reason: str = ""
    """Why it is not the chosen one."""
    calls: int = 0

    @property
    def name(self) -> str:
        """Who computes, for the report."""
        return self.backend.name if self.backend is not None else DEFAULT

    def compute(self, a: Arguments) -> torch.Tensor:
        """Run the kernel."""
        assert self.call is not None and self.backend is not None and self.kernel is not None
        return compute(self.backend, self.kernel, self.grouped, a, self.call)


@dataclass
class DeviceState:
    """What one device's thread knows. Devices never share it."""

    device: torch.device
    facts: DeviceFacts
    plans: dict[tuple[Any, ...], Plan] = field(default_factory=dict)
    retired: list[Plan] = field(default_factory=list)
    """Plans whose kernel failed; their counts still count."""
    passed: dict[str, int] = field(default_factory=dict)
    """Calls left to the host without a look at them, by reason."""
    outside: str = ""
    """Why the present evaluation is not meant, such as "before start_percent"."""
    failures: dict[tuple[str, str], str] = field(default_factory=dict)
    """Kernels that failed in a call, by backend and class of calls."""
    winners: dict[str, str] = field(default_factory=dict)
    """Auto's choice by class of calls."""

    @classmethod
    def of(cls, device: torch.device) -> DeviceState:
        """A new state."""
        return cls(device, facts_of(device))


class Planner:
    """Makes plans. Thread-safe as long as each thread brings its own device's state.

    Parameters
    ----------
    memory
        Choices of earlier runs, read and added to.
    host_may_win
        Whether the host's own function may take part in the race.
    """

    def __init__(
        self,
        settings: AttentionSettings,
        report: AttentionReport,
        memory: Memory,
        host_may_win: bool,
    ) -> None:
        self._settings = settings
        self._report = report
        self._memory = memory
        self._host_may_win = host_may_win
        self._lock = threading.Lock()

    def plan(self, state: DeviceState, a: Arguments, asked: HostCall) -> Plan:
        """The plan for a call and all like it.

        Raises
        ------
        AccelerationError
            When the chosen backend cannot take it and ``on_unsupported`` is ``error``.
        """
        wanted = self._settings.kernel
        if wanted == DEFAULT:
            return Plan()
        call, why_not = shape_of(a, asked.kwargs)
        if call is None:
            self._refuse(wanted, why_not)
            return Plan(reason=why_not)
        if wanted == AUTO:
            return self._fastest(state, call, a, asked)
        reason = ""
        for name in (wanted, *BACKENDS[wanted].falls_to):
            plan, why_not = self._try(state, BACKENDS[name], call)
            if plan is not None:
                plan.reason = reason
                return plan
            if name == wanted:
                reason = f"{name}: {why_not}"
                self._refuse(name, why_not)
        return Plan(call, reason=reason)

    def failed(self, state: DeviceState, plan: Plan, problem: Exception) -> None:
        """Remember that a kernel failed in a call, so that the next plan does without it."""
        assert plan.call is not None
        kind = shape_class(plan.call)
        lines = str(problem).strip().splitlines() or ["no message"]
        state.failures[plan.name, kind] = (
            f"it failed with {type(problem).__name__}: {lines[0][:200]}"
        )
        state.winners.pop(kind, None)
        state.retired.append(plan)

    def check(self, device: torch.device, dtype: torch.dtype) -> None:
        """Try the chosen backend before sampling starts.

        Raises
        ------
        AccelerationError
            When it does not work here and ``on_unsupported`` is ``error``.
        """
        backend = BACKENDS.get(self._settings.kernel)
        if backend is None:
            return
        dtypes = backend.limits_on(facts_of(device)).dtypes
        if dtypes is not None and dtype not in dtypes:
            dtype = min(dtypes, key=str)
        found = self._finding(backend, device, dtype)
        if found.reason:
            self._refuse(backend.name, found.reason)

    def _try(
        self, state: DeviceState, backend: Backend, call: CallShape
    ) -> tuple[Plan | None, str]:
        """A plan with a backend, or why it cannot take a call."""
        limits = backend.limits_on(state.facts)
        failure = state.failures.get((backend.name, shape_class(call)), "")
        why_not = failure or limits.why_not(call, state.facts)
        if why_not:
            return None, why_not
        found = self._finding(backend, state.device, call.dtype)
        if found.kernel is None or found.reason:
            return None, found.reason
        if found.counts_padding and -call.kv_tokens % KEY_BLOCK > MOST_PADDING * call.kv_tokens:
            return None, (
                f"{call.kv_tokens} keys are no multiple of {KEY_BLOCK}, and this version counts "
                "the rest of the block as keys"
            )
        return Plan(call, backend, found.kernel, limits.grouped), ""

    def _finding(self, backend: Backend, device: torch.device, dtype: torch.dtype) -> Finding:
        try:
            found = finding(backend, device, dtype)
        except Exception as problem:
            if not is_out_of_memory(problem) or can_be_freed():
                raise
            found = Finding(None, "memory ran out while it was tried")
        with self._lock:
            if found.reason:
                self._report.probes[backend.name] = found.reason
            elif found.error is not None:
                short = str(dtype).removeprefix("torch.")
                self._report.probes[f"{backend.name} {short}"] = f"works, error {found.error:.1e}"
        return found

    def _refuse(self, name: str, why_not: str) -> None:
        # That a model asks for full precision is no limit of a backend: it gets it.
        if self._settings.on_unsupported == "error" and why_not != LOW_PRECISION_REFUSED:
            raise AccelerationError(
                f"on_unsupported is 'error' and {name} cannot take an attention call of this "
                f"model: {why_not}. Choose on_unsupported = fallback, or another backend."
            )

    # ---------------------------------------------------------------- auto

    def _fastest(self, state: DeviceState, call: CallShape, a: Arguments, asked: HostCall) -> Plan:
        order = starting_order(state.facts)
        if self._settings.allow_low_precision:
            order += tuple(n for n, b in BACKENDS.items() if b.races and not b.exact)
        plans: dict[str, Plan] = {}
        for name in order:
            plan, _ = self._try(state, BACKENDS[name], call)
            if plan is not None:
                plans[name] = plan
        # A host that was started with a quantizing kernel is no exact candidate.
        if not plans or (self._host_may_win and "sage" not in asked.name):
            plans[DEFAULT] = Plan(call)
        kind = shape_class(call)
        if state.winners.get(kind) not in plans:
            state.winners[kind] = self._decide(state, kind, plans, a, asked)
        return plans[state.winners[kind]]

    def _decide(
        self,
        state: DeviceState,
        kind: str,
        plans: dict[str, Plan],
        a: Arguments,
        asked: HostCall,
    ) -> str:
        key = memory_key(state.facts, kind, plans, asked.name)
        remembered = str(self._memory.get(key, {}).get("backend"))
        if remembered in plans:
            outcome = Outcome(remembered, remembered=True)
        elif len(plans) == 1:
            outcome = Outcome(next(iter(plans)))
        else:

            def run(name: str) -> torch.Tensor:
                if name == DEFAULT:
                    return asked.function(*asked.args, **asked.kwargs)
                return plans[name].compute(a)

            outcome = race(
                list(plans), run, state.device, lambda name: tolerance_of(name, a.q.dtype)
            )
            times = {name: round(ms, 4) for name, ms in outcome.milliseconds.items()}
            with self._lock:
                if not outcome.starved:
                    self._memory[key] = {"backend": outcome.winner, "milliseconds": times}
        with self._lock:
            self._report.choices[f"{state.device} {kind}"] = outcome.sentence()
            for name, why in outcome.dropped.items():
                self._report.notice(f"{name} left the race: {why}")
        return outcome.winner

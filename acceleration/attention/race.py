"""The automatic choice: rules by device first, then the time of the model's own calls."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, MutableMapping
from dataclasses import dataclass, field
from typing import Any

import torch

from ..lack_of_memory import can_be_freed, is_out_of_memory
from ..timing import Span
from .backend import Backend
from .call import CallShape
from .device import DeviceFacts
from .probe import TOLERANCE
from .registry import BACKENDS, DEFAULT

MARGIN = 0.97
"""What a challenger's time may be at most, against the one that the rules put first: timing is
noisy, and a choice that flips between equals changes pictures for nothing."""
ROUNDS = 3
LONG_SECONDS = 0.05
"""A candidate that takes this long is timed once."""

Memory = MutableMapping[str, dict[str, Any]]
"""Remembered choices: by key, ``{"backend": name, "milliseconds": {name: ms}}``."""


def starting_order(device: DeviceFacts) -> tuple[str, ...]:
    """Exact backends in the order in which a device probably likes them.

    Source: SGLang-Diffusion's automatic choice. CUDA: FlashAttention (its version by generation);
    Blackwell SM10x: cuDNN; SM12x, below SM80, and everything else: SDPA.
    """
    rest = tuple(name for name, backend in BACKENDS.items() if backend.exact and backend.races)
    capability = device.capability
    first: tuple[str, ...] = ("sdpa",)
    if device.kind == "rocm":
        first = ("flash", "sdpa")
    elif capability is not None and capability >= (8, 0):
        if capability[0] == 9:
            first = ("flash3", "flash", "sdpa")
        elif capability[0] in (10, 11):
            first = ("sdpa_cudnn", "flash4", "sdpa")
        elif capability[0] < 9:
            first = ("flash", "sdpa")
    return tuple(dict.fromkeys((*first, *rest)))


def shape_class(call: CallShape) -> str:
    """What calls have in common that the same backend serves best; tokens by powers of two."""
    sizes = f"q2^{_power(call.q_tokens)} k2^{_power(call.kv_tokens)} x{_power(call.batch)}"
    kind = "causal" if call.causal else call.mask
    return (
        f"{str(call.dtype).removeprefix('torch.')} {call.heads}/{call.kv_heads}x{call.head_size} "
        f"{sizes} {kind}"
    )


def _power(number: int) -> int:
    return round(math.log2(max(number, 1)))


def memory_key(device: DeviceFacts, kind: str, candidates: Iterable[str], host: str) -> str:
    """Key of a remembered choice: device, versions, who took part, and the class of the calls."""
    names = []
    for name in candidates:
        version = BACKENDS[name].version() if name in BACKENDS else host
        names.append(f"{name} {version}".strip())
    threads = f", {torch.get_num_threads()} threads" if device.kind == "cpu" else ""
    return f"{device}{threads} | torch {torch.__version__} | {', '.join(names)} | {kind}"


@dataclass(frozen=True)
class Outcome:
    """Who won, by what times, and who had to leave."""

    winner: str
    milliseconds: dict[str, float] = field(default_factory=dict)
    dropped: dict[str, str] = field(default_factory=dict)
    remembered: bool = False
    starved: bool = False
    """Memory ran out for somebody, which may be otherwise the next time."""

    def sentence(self) -> str:
        """The choice in words."""
        if self.remembered:
            return f"{self.winner}, remembered from an earlier run"
        if len(self.milliseconds) < 2:
            return f"{self.winner}, the only one that fits"
        times = sorted(self.milliseconds.items(), key=lambda item: item[1])
        return f"{self.winner} (" + ", ".join(f"{n} {ms:.3g} ms" for n, ms in times) + ")"


def race(
    candidates: list[str],
    run: Callable[[str], torch.Tensor],
    device: torch.device,
    tolerance: Callable[[str], float],
) -> Outcome:
    """Time candidates on one call.

    The first one that runs is the reference: whoever is farther from it than its tolerance, fails
    or gives no numbers, leaves. Each runs once unmeasured (kernels are compiled then).

    Parameters
    ----------
    candidates
        Names, the one that the rules put first at the head.
    run
        Computes the call with a backend.
    tolerance
        Largest relative error (L2) of a backend.
    """
    dropped: dict[str, str] = {}
    reference: torch.Tensor | None = None
    running: list[str] = []
    starved = False
    for name in candidates:
        try:
            out = run(name)
        except Exception as problem:
            if is_out_of_memory(problem):
                if can_be_freed():
                    raise
                starved = True
            dropped[name] = f"failed ({type(problem).__name__}: {str(problem)[:200]})"
            continue
        if reference is None:
            reference = out
        else:
            error = _relative(out, reference)
            if not error <= tolerance(name):
                dropped[name] = f"differs by {error:.2g} from {running[0]}"
                continue
        running.append(name)
    if not running:
        raise RuntimeError("; ".join(f"{n} {why}" for n, why in dropped.items()))
    best = dict.fromkeys(running, math.inf)
    for index in range(ROUNDS):
        for name in running:
            if index and best[name] > LONG_SECONDS:
                continue
            span = Span(device)
            run(name)
            best[name] = min(best[name], span.stop().seconds())
    fastest = min(running, key=lambda name: best[name])
    winner = fastest if best[fastest] <= MARGIN * best[running[0]] else running[0]
    return Outcome(winner, {name: 1000 * s for name, s in best.items()}, dropped, starved=starved)


def _relative(out: torch.Tensor, reference: torch.Tensor) -> float:
    size = reference.float().norm()
    return float((out.float() - reference.float()).norm() / size.clamp(min=1e-20))


def tolerance_of(name: str, dtype: torch.dtype) -> float:
    """Largest relative error (L2) between a backend and an exact one."""
    backend: Backend | None = BACKENDS.get(name)
    if backend is not None and backend.tolerance is not None:
        return backend.tolerance
    # Two roundings apart, not one. The host's own function may sum in half precision.
    return (4 if name == DEFAULT else 2) * TOLERANCE.get(dtype, 3e-2)

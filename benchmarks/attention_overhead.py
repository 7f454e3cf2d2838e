"""What the Attention Backend costs a call on the CPU, beside the attention itself.

The host's ``attention_pytorch`` is called as models call it, on tensors so small that computing
hardly counts: without an override, and with ours, which ends in the same function of torch. A
pinned kernel is compared with the host's function while torch is set to that kernel from outside,
so that both compute alike. The overhead is the difference; each figure is the median over rounds of
the mean of many calls.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import harness
from harness import say

LIMIT_US = 20.0
BATCH, HEADS, TOKENS, HEAD_SIZE = 1, 2, 8, 16
BACKENDS = ("default", "sdpa", "auto", "sdpa_flash", "sdpa_math")
PINNED = {"sdpa_flash": "FLASH_ATTENTION", "sdpa_math": "MATH"}


def tensors(heads_first: bool) -> tuple[Any, Any, Any]:
    """Queries, keys and values in one of the host's layouts."""
    import torch

    shape = (BATCH, HEADS, TOKENS, HEAD_SIZE) if heads_first else (BATCH, TOKENS, HEADS * HEAD_SIZE)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(shape, generator=generator) for _ in range(3))
    return q, k, v


def options_for(backend: str | None) -> dict[str, Any]:
    """``transformer_options`` as in a run with this backend, or in one without the node."""
    if backend is None:
        return {}
    from dit_acceleration_pack.acceleration.attention import AttentionRun, AttentionSettings
    from dit_acceleration_pack.acceleration.host.attention import ATTENTION_KEY, OVERRIDE, override
    from dit_acceleration_pack.acceleration.sampling.gates import untraced

    run = AttentionRun(AttentionSettings(backend=backend))
    return {ATTENTION_KEY: run, OVERRIDE: untraced(override)}


def case(backend: str | None, heads_first: bool, masked: bool) -> Callable[[], Any]:
    """One attention call."""
    import torch
    from comfy.ldm.modules.attention import attention_pytorch

    q, k, v = tensors(heads_first)
    mask = torch.zeros(TOKENS, TOKENS) if masked else None
    options = options_for(backend)

    def call() -> Any:
        return attention_pytorch(
            *(q, k, v, HEADS), mask=mask, skip_reshape=heads_first, transformer_options=options
        )

    return call


def microseconds(call: Callable[[], Any], calls: int) -> float:
    """Mean time of a call."""
    began = time.perf_counter()
    for _ in range(calls):
        call()
    return (time.perf_counter() - began) / calls * 1e6


def set_from_outside(backend: str) -> Any:
    """A context in which the host's function uses the kernel of a backend."""
    from torch.nn.attention import SDPBackend, sdpa_kernel

    if backend not in PINNED:
        return contextlib.nullcontext()
    return sdpa_kernel(getattr(SDPBackend, PINNED[backend]))


def measure(rounds: int, calls: int) -> list[dict[str, Any]]:
    """A row for every backend, layout and mask."""
    return [
        row_of(backend, heads_first, masked, rounds, calls)
        for heads_first in (True, False)
        for masked in (False, True)
        for backend in BACKENDS
    ]


def row_of(
    backend: str, heads_first: bool, masked: bool, rounds: int, calls: int
) -> dict[str, Any]:
    """One backend beside the host without the node, in turn."""
    import torch

    plain, ours = case(None, heads_first, masked), case(backend, heads_first, masked)
    times: list[tuple[float, float]] = []
    with torch.inference_mode():
        for index in range(rounds + 1):
            with set_from_outside(backend):
                without = microseconds(plain, calls)
            taken = microseconds(ours, calls)
            if index:  # the first round only warms up
                times.append((without, taken))
    return harness.rounded(
        {
            "backend": backend,
            "layout": "B H L D" if heads_first else "B L H·D",
            "mask": masked,
            "plain_us": statistics.median(without for without, _ in times),
            "us": statistics.median(taken for _, taken in times),
            "overhead_us": statistics.median(taken - without for without, taken in times),
        },
        2,
    )


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--rounds", type=int, default=21, help="default: %(default)s")
    parser.add_argument("--calls", type=int, default=1000, help="calls a round: %(default)s")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "attention_overhead.json")


def main(options: argparse.Namespace, environment: Any) -> int:
    rows = measure(options.rounds, options.calls)
    harness.show(*rows)
    worst = max(r["overhead_us"] for r in rows)
    say(f"At most {worst:.1f} µs a call; the limit is {LIMIT_US:g} µs.")
    data = {
        "environment": harness.describe(environment),
        "rounds": options.rounds,
        "calls_a_round": options.calls,
        "limit_us": LIMIT_US,
        "rows": rows,
    }
    harness.write(options.output, data)
    return 0 if worst <= LIMIT_US else 1


if __name__ == "__main__":
    harness.run(__file__, add_options, main)

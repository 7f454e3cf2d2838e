"""How often a run makes the processor wait for the device, plain and cached, by PyTorch's profiler.

Counted are the runtime's waits, copies from the device, and what asks for a number. The last also
counts numbers on the CPU, for which nothing waits; a number on the GPU is a copy and a wait too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

import full_size_rows as rows

STEPS = 10
KINDS = (
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
    "aten::item",
    "Memcpy DtoH",
)
VARIANTS: dict[str, Callable[[Any], Any]] = {
    "plain": rows.plain,
    "balanced": rows.planned(),
    "Cache-DiT": rows.cache_dit(),
}
EVALUATIONS = 1 + len(VARIANTS) * STEPS
"""What is sampled in all."""


def counts(full: Any, model: Any, steps: int = STEPS) -> Counter[str]:
    """Events of one sampling run by kind, those of reading our own clocks left out."""
    import torch
    from torch.profiler import ProfilerActivity, profile

    activities = [ProfilerActivity.CPU]
    if full.device.type == "cuda":
        activities.append(ProfilerActivity.CUDA)
    with profile(activities=activities) as profiler, torch.inference_mode():
        full.sample(model, steps)
    assert profiler.profiler is not None
    # Without the tree of events, which takes longer to make than the run.
    events = profiler.profiler.kineto_results.events()
    names = (event.name() for event in events)
    return Counter(kind for name in names for kind in KINDS if name.startswith(kind))


def measure(full: Any) -> dict[str, Any]:
    """Events per evaluation of every variant, and how many evaluations it computed."""
    import harness

    from dit_acceleration_pack.acceleration import host

    # The profiler starts up once, and the host loads the model once.
    counts(full, full.model, 1)
    found: dict[str, Any] = {"steps": STEPS}
    for name, make in VARIANTS.items():
        model = make(full.model)
        seen = counts(full, model)
        report = host.last_report(model)
        evaluations = len(report.evaluations) if report else STEPS
        found[name] = harness.rounded({kind: seen[kind] / evaluations for kind in KINDS}, 2)
        found[name]["evaluations"] = evaluations
        found[name]["computed"] = report.computed if report else STEPS
    return found

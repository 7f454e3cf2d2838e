"""Runs of tiny models with Progressive Resolution, and what their networks are given."""

from __future__ import annotations

from typing import Any

import tiny_models as tm
import torch

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.progressive import ProgressiveReport, ProgressiveSettings

SIZE = (32, 32)
LATENTS: dict[str, tuple[int, ...]] = {
    "flux": (16, 32, 32),
    "flux2": (128, 16, 16),
    "wan": (16, 3, 32, 32),
    "qwen_image": (16, 1, 32, 32),
}
SETTINGS: dict[str, Any] = {"mode": "custom", "switch_sigma": 0.8, "min_full_steps": 2}


def attach(model: Any, latents: Any = None, **settings: Any) -> Any:
    chosen = ProgressiveSettings(**{**SETTINGS, **settings})
    return host.attach_progressive(model, chosen, latents=latents)


def report_of(model: Any) -> ProgressiveReport:
    lever = host.lever_of(model, host.PROGRESSIVE_KEY)
    assert lever is not None and isinstance(lever.last_report, ProgressiveReport)
    return lever.last_report


def counts(model: Any) -> dict[str, int]:
    return {stage.size: stage.evaluations for stage in report_of(model).stages}


class Seen:
    """What every call of the network got."""

    def __init__(self, model: Any) -> None:
        self.sizes: list[tuple[int, ...]] = []
        self.sigmas: list[float] = []
        self.schedules: list[list[float]] = []
        self.given: list[dict[str, Any]] = []
        from comfy.patcher_extension import WrappersMP

        def wrapper(executor: Any, *args: Any, **kwargs: Any) -> Any:
            options = args[5]
            self.sizes.append(tuple(args[0].shape[-2:]))
            self.sigmas.append(float(options["sigmas"][0]))
            self.schedules.append(options["sample_sigmas"].tolist())
            self.given.append({"concat": args[2], "control": args[4], **kwargs})
            return executor(*args, **kwargs)

        self.model = model.clone()
        self.model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "tests_seen", wrapper)


def run(model: Any, name: str = "flux", **options: Any) -> torch.Tensor:
    options = {"steps": 8, "latent": LATENTS[name], **options}
    return tm.sample(model, name, **options)

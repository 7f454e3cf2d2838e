"""Tiny models and the demo models behind Quantize Model, and what became of them."""

from __future__ import annotations

from typing import Any

import tiny_models as tm
import torch

from dit_acceleration_pack.acceleration import host
from dit_acceleration_pack.acceleration.quantize import QuantizeReport, QuantizeSettings


def attach(model: Any, name: str | None = None, emulate: bool = False, **settings: Any) -> Any:
    """A tiny model behind the node, int8 if nothing is said, measured with its own conditioning."""
    found = {"precision": "int8", **settings}
    positive = latent = None
    if name is not None:
        tm.forget_earlier_runs(model, name)
        positive, latent = tm.conditioning(name, 1), tm.empty_latent(name)
    return host.attach_quantize(
        model, QuantizeSettings(**found), positive=positive, latent=latent, emulate=emulate
    )


def report_of(model: Any) -> QuantizeReport:
    lever = host.lever_of(model, host.QUANTIZE_KEY)
    assert lever is not None and isinstance(lever.last_report, QuantizeReport)
    return lever.last_report


def is_quantized(tensor: Any) -> bool:
    from comfy.quant_ops import QuantizedTensor

    return isinstance(tensor, QuantizedTensor)


def relative(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())

"""Which formats a device computes in, and which of them are faster than the model as it is."""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch

from ..attention.device import DeviceFacts, facts_of
from ..attention.race import MARGIN, race
from ..quantize import FORMATS, Choice, Layer
from ..quantize.report import NAME
from .remembered import choices_file, read_choices, write_choices

log = logging.getLogger("dit_acceleration")

AS_IT_IS = "as it is"
TOKENS = {"cpu": 256}
"""Rows of the race's input; on other devices as many as a picture of 1024 pixels has."""
PICTURE_TOKENS = 4096
MOST_SHAPES = 6
FILE = "quantize_choices"


def kernels_of(device: torch.device) -> frozenset[str]:
    """Formats that a device computes in."""
    facts = facts_of(device)
    return frozenset(name for name in FORMATS if _has_kernel(name, facts))


def _has_kernel(name: str, facts: DeviceFacts) -> bool:
    if facts.kind == "cuda" and facts.capability is not None:
        return facts.capability >= FORMATS[name].capability
    return facts.kind in ("cpu", "rocm") and FORMATS[name].processor


def faster_formats(
    model: Any, layers: Sequence[Layer], kernels: Iterable[str]
) -> tuple[str, list[str]]:
    """What a race on the model's own shapes found, in words, and the faster formats in order."""
    device, dtype = model.load_device, model.model.get_dtype_inference()
    shapes = Counter((la.rows, la.columns) for la in layers if not la.modulation)
    most = sorted(shapes, key=lambda s: -shapes[s] * s[0] * s[1])[:MOST_SHAPES]
    names = [AS_IT_IS, *(name for name in FORMATS if name in set(kernels))]
    memory = read_choices(choices_file(FILE))
    key = _key(device, dtype, names, {shape: shapes[shape] for shape in most})
    times = memory.get(key, {}).get("milliseconds")
    known = isinstance(times, dict) and AS_IT_IS in times
    if not known:
        times = _times(device, dtype, names, {shape: shapes[shape] for shape in most})
        write_choices(choices_file(FILE), {key: {"milliseconds": times}})
    assert isinstance(times, dict)
    order = sorted(times, key=lambda name: times[name])
    told = ", ".join(f"{name} {times[name]:.3g} ms" for name in order)
    return (
        told + (", remembered from an earlier run" if known else ""),
        [n for n in order if n != AS_IT_IS and times[n] <= MARGIN * times[AS_IT_IS]],
    )


def _key(
    device: torch.device, dtype: torch.dtype, names: Sequence[str], shapes: dict[Any, int]
) -> str:
    facts = facts_of(device)
    threads = f", {torch.get_num_threads()} threads" if facts.kind == "cpu" else ""
    sizes = ", ".join(f"{count} x {rows}x{columns}" for (rows, columns), count in shapes.items())
    return (
        f"{facts}{threads} | torch {torch.__version__}, comfy-kitchen {_kitchen()} | "
        f"{', '.join(names)} | {str(dtype).removeprefix('torch.')} {sizes}"
    )


def _kitchen() -> str:
    try:
        return version("comfy-kitchen")
    except PackageNotFoundError:
        return "unknown"


def _times(
    device: torch.device, dtype: torch.dtype, names: Sequence[str], shapes: dict[Any, int]
) -> dict[str, float]:
    """Milliseconds of the products of all shapes, once each times how many layers have it."""
    from .quantize_layouts import quantized, quantized_layer

    tokens = TOKENS.get(device.type, PICTURE_TOKENS)
    total = dict.fromkeys(names, 0.0)
    for (rows, columns), count in shapes.items():
        weight = torch.randn(rows, columns, device=device, dtype=dtype)
        x = torch.randn(1, tokens, columns, device=device, dtype=dtype)
        layer = Layer("", rows, columns, dtype)
        plain = torch.nn.Linear(columns, rows, bias=False, device="meta")
        made: dict[str, Any] = {}
        for name in names[1:]:
            choice = Choice(layer, name)
            made[name] = quantized_layer(
                plain, quantized(weight, choice, dtype), choice, dtype, exact=False
            )
        made[AS_IT_IS] = partial(torch.nn.functional.linear, weight=weight)
        with torch.inference_mode():
            found = race(list(names), partial(_product, made, x), device, _any)
        for name, why in found.dropped.items():
            log.info("%s: %s is out of the race: %s", NAME, name, why)
        for name in names:
            total[name] += count * found.milliseconds.get(name, math.inf)
    return {name: time for name, time in total.items() if math.isfinite(time)}


def _product(made: Mapping[str, Any], x: torch.Tensor, name: str) -> torch.Tensor:
    found: torch.Tensor = made[name](x)
    return found


def _any(_: str) -> float:
    """How much a format loses is not the race's question."""
    return 1.0

"""The settings that `full_size.py` measures, in the order of their worth."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

SHORT = 4
"""Steps of rows in which nothing is skipped and only the time of an evaluation counts."""
WARM_UP = 2
SKIPPING = 8
"""The fewest steps of which a preset skips some."""

PLAIN, AGAIN, NOTHING_SKIPPED = "plain", "plain again", "nothing skipped"
SYNCHRONISATIONS = "synchronisations"


@dataclass(frozen=True)
class Row:
    """One setting.

    Parameters
    ----------
    make
        From the plain MODEL to the one that is sampled.
    share
        About what part of the plain run's time it takes.
    short
        Sample `SHORT` steps only; then the speed-up is that of an evaluation.
    warm_up
        Steps that are sampled first, untimed, where the first calls do something once; -1 for a
        whole run.
    compiling
        Above 0, blocks are compiled, however short the run; the untimed run is the one that
        compiles. A guess of the seconds this takes.
    on_gpu
        Needs a CUDA device.
    """

    name: str
    make: Callable[[Any], Any]
    share: float = 1.0
    short: bool = False
    warm_up: int = 0
    compiling: float = 0.0
    on_gpu: bool = False

    def estimate(self, evaluation: float, steps: int) -> float:
        """Seconds of the row, from those of an evaluation and the steps of a whole run."""
        timed = SHORT if self.short else steps
        untimed = timed if self.warm_up < 0 else self.warm_up
        return evaluation * (timed * self.share + untimed) + self.compiling

    def around(self) -> contextlib.AbstractContextManager[None]:
        """What surrounds the sampling."""
        return compiling_always() if self.compiling else contextlib.nullcontext()


@contextlib.contextmanager
def compiling_always() -> Iterator[None]:
    """Let Performance Mode compile runs that it thinks too short, as a second run is faster."""
    from dit_acceleration_pack.acceleration.performance import compiling

    said = "blocks are compiled, whatever the length of the run"
    with mock.patch.object(compiling, "verdict", lambda *_: said):
        yield


def plain(model: Any) -> Any:
    """The model as it is."""
    return model


def mode(mode: str, approximation: str, target: float = 2.0) -> Callable[[Any], Any]:
    """The model behind Performance Mode."""

    def make(model: Any) -> Any:
        from dit_acceleration_pack.acceleration import host
        from dit_acceleration_pack.acceleration.performance import PerformanceSettings

        return host.attach_performance(model, PerformanceSettings(mode, approximation, target))

    return make


def attention(backend: str) -> Callable[[Any], Any]:
    """The model behind Attention Backend; a RuntimeError says why one does not work here."""

    def make(model: Any) -> Any:
        from dit_acceleration_pack.acceleration import host
        from dit_acceleration_pack.acceleration.attention import BACKENDS, AttentionSettings
        from dit_acceleration_pack.acceleration.attention.probe import finding

        if backend in BACKENDS:
            dtype = model.model.get_dtype_inference()
            found = finding(BACKENDS[backend], model.load_device, dtype)
            if found.kernel is None:
                raise RuntimeError(f"{backend}: {found.reason}")
        return host.attach_attention(model, AttentionSettings(backend=backend))

    return make


def everything_but_skipping(model: Any) -> Any:
    """Attention counted, memory asked for, every evaluation watched and remembered."""
    return mode("auto", "target", 1.0)(attention("default")(model))


def cache_dit(**settings: Any) -> Callable[[Any], Any]:
    """The model behind Apply Cache-DiT."""

    def make(model: Any) -> Any:
        import harness

        return harness.accelerate(model, **settings)

    return make


def tea_cache(model: Any) -> Any:
    """The model behind Apply TeaCache as it comes."""
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
    from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

    return host.attach(model, TeaCache(TeaCacheSettings()))


def planned(residual_device: str = "auto") -> Callable[[Any], Any]:
    """What "balanced" attaches, with residuals kept somewhere else."""

    def make(model: Any) -> Any:
        from dit_acceleration_pack.acceleration import host
        from dit_acceleration_pack.acceleration.performance import PRESET_SPEEDUPS
        from dit_acceleration_pack.acceleration.policies.planned import Planned

        speedup = PRESET_SPEEDUPS["balanced"]
        technique = Planned(speedup, "balanced", residual_device=residual_device)
        return host.attach(model, technique)

    return make


def progressive(how: str) -> Callable[[Any], Any]:
    """The model behind Progressive Resolution."""

    def make(model: Any) -> Any:
        import two_sizes

        return two_sizes.progressive(model, mode=how)

    return make


def quantized(precision: str) -> Callable[[Any], Any]:
    """The model behind Quantize Model, which measures on noise in place of a prompt."""

    def make(model: Any) -> Any:
        from dit_acceleration_pack.acceleration import host
        from dit_acceleration_pack.acceleration.quantize import QuantizeSettings

        return host.attach_quantize(model, QuantizeSettings(precision, measure="off"))

    return make


def attention_rows() -> list[Row]:
    """Every backend that is installed and worth timing, each as the only lever."""
    from dit_acceleration_pack.acceleration.attention import BACKENDS, available_backends

    names = [a.name for a in available_backends() if a.available and BACKENDS[a.name].races]
    return [
        Row(f"attention {name}", attention(name), short=True, warm_up=WARM_UP) for name in names
    ]


def all_rows() -> list[Row]:
    """Every row but that of the synchronisations, the most telling first."""
    return [
        Row(PLAIN, plain),
        Row(NOTHING_SKIPPED, everything_but_skipping),
        Row("quality", mode("auto", "quality"), share=0.7),
        Row("balanced", mode("auto", "balanced"), share=0.55),
        Row("fast", mode("auto", "fast"), share=0.45),
        Row("ultra", mode("auto", "ultra"), share=0.4),
        Row("Cache-DiT", cache_dit(), share=0.6),
        Row("SCM fast static", cache_dit(scm_preset="fast", scm_policy="static"), share=0.55),
        Row("TeaCache", tea_cache, share=0.7),
        Row(AGAIN, plain),
        Row("progressive fine", progressive("fine"), share=0.9),
        Row("progressive balanced", progressive("balanced"), share=0.7),
        Row("progressive fast", progressive("fast"), share=0.6),
        Row(
            "progressive fast, balanced",
            lambda model: mode("auto", "balanced")(progressive("fast")(model)),
            share=0.4,
        ),
        *(Row(f"quantize {name}", quantized(name), warm_up=WARM_UP) for name in ("int8", "fp8")),
        Row("attention auto", attention("auto"), short=True, warm_up=WARM_UP),
        Row("speed", mode("speed", "off"), warm_up=WARM_UP),
        Row("speed, balanced", mode("speed", "balanced"), share=0.55, warm_up=WARM_UP),
        Row("balanced, residuals gpu", planned("gpu"), share=0.55),
        Row("balanced, residuals cpu", planned("cpu"), share=0.6),
        Row("balanced, residuals gpu_fp8", planned("gpu_fp8"), share=0.6),
        Row("balanced, residuals cpu_fp8", planned("cpu_fp8"), share=0.6),
        Row("speed, compiled", mode("speed", "off"), warm_up=-1, compiling=45.0, on_gpu=True),
        Row(
            "speed, compiled, balanced",
            mode("speed", "balanced"),
            share=0.5,
            warm_up=-1,
            # Most of the code is there from the row before.
            compiling=10.0,
            on_gpu=True,
        ),
        *attention_rows(),
        Row("Cache-DiT, threshold 0", cache_dit(residual_diff_threshold=0.0)),
    ]

#!/usr/bin/env python3
"""What Progressive Resolution loses and saves.

- ``closed form``: pictures whose power falls as those of FLUX.1's autoencoder, with the denoiser
  that is right for them at either size. The same 28 steps with so many at half the side: the
  network's call made small, SGLang-Diffusion's ``dct`` and ``dct_rewind`` (its padding noise is
  fresh; also with the noise of the full run), and a bicubic picture with fresh noise. ``psnr`` to
  the full run, peak = its range; ``band`` is the octave of frequencies whose energy is farthest
  from the full run's, in dB.
- ``demo``: the demo models at the size that they were trained at and at twice that size, each mode
  against the full run; ``plain_psnr`` is plain sampling with so many fewer steps that it takes as
  long. They were trained at one size only, so how well they draw at another is their own affair.
- ``two sizes``: the check models, which were trained at both sizes; see ``two_sizes.py``.
- ``caching``: seconds of a run with small pictures, with caching, and with both, in turns on the
  FLUX demo at twice its size; ``psnr`` of both is to the run with small pictures alone.
- ``cost``: an evaluation at half the side as a share of a full one (``share``), and how much of a
  full one the wrapper adds to it (``extra_share``), against a run that is small from the beginning;
  the ``speedup`` of a run beside ``formula``, what the two kinds of evaluations alone would give.
"""

from __future__ import annotations

import argparse
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import checks
import harness
import performance
import two_sizes

if TYPE_CHECKING:
    import torch

SIDE, CHANNELS, STEPS, SHIFT = 128, 16, 28, 1.15
COARSE = (8, 12, 16, 20)
SEED = 5000
MODES = ("fine", "balanced", "fast")
SIZES = {"FLUX": (32, 64), "Wan": (12, 24)}
LATE = 0.75
KINDS = ("closed form", "demo", "two sizes", "caching", "cost")


class ClosedForm:
    """Gaussian pictures with a known spectrum, and their denoiser at two sizes.

    Their frequencies know nothing of each other, so a small denoiser is exact in its corner: what
    is counted is what ways to switch lose there, and what is missing above the corner before.
    """

    def __init__(self) -> None:
        import torch

        from dit_acceleration_pack.acceleration.progressive import Corner, PowerLaw
        from dit_acceleration_pack.acceleration.progressive.corner import dct_matrix
        from dit_acceleration_pack.acceleration.progressive.settings import FLUX_1

        law = PowerLaw(*FLUX_1)
        order = torch.arange(SIDE, dtype=torch.float64) / 2
        self.radius = torch.hypot(order[:, None], order)
        self.power = (law.A * self.radius.clamp(min=0.5) ** -law.beta).float()
        self.matrices = {side: dct_matrix(side).float() for side in (SIDE, SIDE // 2)}
        self.corner = Corner((SIDE, SIDE), (SIDE // 2, SIDE // 2))
        times = torch.linspace(1, 0, STEPS + 1).tolist()
        grown = math.exp(SHIFT)
        self.sigmas = [grown / (grown + 1 / t - 1) if t > 0 else 0.0 for t in times]

    def spectrum(self, x: torch.Tensor) -> torch.Tensor:
        matrix = self.matrices[x.shape[-1]]
        return matrix @ x @ matrix.T

    def picture(self, spectrum: torch.Tensor) -> torch.Tensor:
        matrix = self.matrices[spectrum.shape[-1]]
        return matrix.T @ spectrum @ matrix

    def denoise(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """The mean of all pictures that give a sample of either size."""
        side = x.shape[-1]
        power = self.power[:side, :side] / (SIDE / side) ** 2
        gain = (1 - sigma) * power / ((1 - sigma) ** 2 * power + sigma**2)
        return self.picture(self.spectrum(x) * gain)

    def small(self, x: torch.Tensor, sigma: float) -> torch.Tensor:
        """The same with the call made small, as the node does."""
        from dit_acceleration_pack.acceleration.progressive import FLOW

        matched = FLOW.matched(sigma, self.corner.ratio)
        found = self.denoise(self.corner.down(x) * (matched / sigma), matched)
        return self.corner.up(found) * self.corner.ratio

    def euler(
        self, x: torch.Tensor, sigmas: Sequence[float], denoise: Callable[[Any, float], Any]
    ) -> torch.Tensor:
        for here, ahead in itertools.pairwise(sigmas):
            found = denoise(x, here)
            x = found + (x - found) * (ahead / here)
        return x

    def ours(self, noise: torch.Tensor, coarse: int) -> torch.Tensor:
        x = self.euler(noise, self.sigmas[: coarse + 1], self.small)
        return self.euler(x, self.sigmas[coarse:], self.denoise)

    def grown(self, noise: torch.Tensor, padding: torch.Tensor, coarse: int, rewind: bool) -> Any:
        """The latent itself is small, and noise fills in above its corner when it grows."""
        x = self.euler(self.corner.down(noise), self.sigmas[: coarse + 1], self.denoise)
        sigma = self.sigmas[coarse]
        large = self.spectrum(padding) * sigma
        large[..., : SIDE // 2, : SIDE // 2] = self.spectrum(x)
        sigmas = list(self.sigmas[coarse:])
        if rewind:
            large *= 2 / (1 + sigma)
            sigmas[0] = 2 * sigma / (1 + sigma)
        return self.euler(self.picture(large), sigmas, self.denoise)

    def bicubic(self, noise: torch.Tensor, padding: torch.Tensor, coarse: int) -> torch.Tensor:
        """The small picture so far, larger, with fresh noise."""
        import torch

        x = self.euler(self.corner.down(noise), self.sigmas[: coarse + 1], self.denoise)
        sigma = self.sigmas[coarse]
        found = self.denoise(x, sigma)
        large = torch.nn.functional.interpolate(found, scale_factor=2, mode="bicubic")
        return self.euler((1 - sigma) * large + sigma * padding, self.sigmas[coarse:], self.denoise)

    def band(self, full: torch.Tensor, other: torch.Tensor) -> float:
        """The difference in energy of the octave where it is largest, in dB."""
        energies = [self.spectrum(x).square().mean((0, 1)) for x in (full, other)]
        edges = [0.0, *(2.0**k for k in range(int(math.log2(SIDE))))]
        found = []
        for low, high in itertools.pairwise(edges):
            ring = (self.radius >= low) & (self.radius < high)
            before, after = (energy[ring].sum().item() for energy in energies)
            found.append(10 * math.log10(after / before))
        return max(found, key=abs)

    def rows(self) -> Iterator[dict[str, Any]]:
        import torch

        generator = torch.Generator().manual_seed(SEED)
        noise, fresh = (torch.randn(2, CHANNELS, SIDE, SIDE, generator=generator) for _ in range(2))
        full = self.euler(noise, self.sigmas, self.denoise)
        ways: dict[str, Callable[[int], torch.Tensor]] = {
            "the network's call made small": lambda n: self.ours(noise, n),
            "dct_rewind": lambda n: self.grown(noise, fresh, n, True),
            "dct_rewind, the full run's noise": lambda n: self.grown(noise, noise, n, True),
            "dct": lambda n: self.grown(noise, fresh, n, False),
            "bicubic and noise": lambda n: self.bicubic(noise, fresh, n),
        }
        for name, way in ways.items():
            for coarse in COARSE:
                other = way(coarse)
                yield {
                    "kind": "closed form", "way": name, "coarse": coarse,
                    "sigma": self.sigmas[coarse], "psnr": harness.psnr(full, other),
                    "band": self.band(full, other),
                }  # fmt: skip


def sample(demo: Any, model: Any, prompt: str, seed: int, cfg: float, steps: int, side: int) -> Any:
    """A latent of a demo model at any size."""
    import comfy.sample
    import torch

    empty = demo.empty(side)
    with torch.inference_mode():
        return comfy.sample.sample(
            model, comfy.sample.prepare_noise(empty, seed), steps, cfg, "euler", "simple",
            demo.conditioning(prompt), demo.conditioning(None), empty, disable_pbar=True, seed=seed,
        )  # fmt: skip


def demo_rows(kind: str, options: argparse.Namespace) -> Iterator[dict[str, Any]]:
    """Every mode on one demo model; a row says why where a size cannot be halved."""
    demo = performance.DEMOS[kind]()
    for side, steps, cfg in itertools.product(SIZES[kind], options.steps, options.cfg):
        runs = [(p, SEED + i, cfg) for i, p in enumerate(demo.prompts[: options.prompts])]
        full: list[Any] = []
        for mode in MODES:
            row = {"kind": "demo", "model": kind, "side": side, "steps": steps, "cfg": cfg}
            row["pictures"] = len(runs)
            row |= {"way": mode, "coarse": 0}
            model = two_sizes.progressive(demo.model, mode=mode)
            others = [sample(demo, model, *run, steps, side) for run in runs]
            report = two_sizes.report_of(model)
            if not report.coarse:
                yield row | {"why": report.refused}
                continue
            full = full or [sample(demo, demo.model, *run, steps, side) for run in runs]
            small, large = report.stages[0], report.stages[-1]
            speedup = report.speedup() or 1.0
            fewer = min(round(steps / speedup), steps)
            plain = [sample(demo, demo.model, *run, fewer, side) for run in runs]
            yield row | {
                "coarse": small.evaluations, "share": small.each / large.each, "speedup": speedup,
                "psnr": mean_psnr(full, others), "plain_steps": fewer,
                "plain_psnr": mean_psnr(full, plain) if fewer < steps else None,
            }  # fmt: skip


def caching_rows(rounds: int, prompts: int, side: int = 64) -> Iterator[dict[str, Any]]:
    """Small pictures and each way of caching, alone and together."""
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.performance import PerformanceSettings
    from dit_acceleration_pack.acceleration.policies.tea_cache import TeaCache
    from dit_acceleration_pack.acceleration.settings.caching import TeaCacheSettings

    demo = harness.Demo()
    balanced = PerformanceSettings(approximation="balanced")
    caching: dict[str, Callable[[Any], Any]] = {
        "balanced": lambda model: host.attach_performance(model, balanced),
        "Cache-DiT": harness.accelerate,
        "TeaCache": lambda model: host.attach(model, TeaCache(TeaCacheSettings())),
    }
    # On so small a picture the modes switch after a few steps; this is late, as with a large one.
    small = two_sizes.progressive(demo.model, mode="custom", switch_sigma=LATE)
    runs = [(p, SEED + i, 1.0) for i, p in enumerate(demo.prompts[:prompts])]
    for name, attach in caching.items():
        ways = {
            "full": demo.model, "small": small, name: attach(demo.model), "both": attach(small),
        }  # fmt: skip
        seconds: dict[str, list[float]] = {way: [] for way in ways}
        found: dict[str, list[Any]] = {}
        for _ in range(rounds):
            for way, model in ways.items():
                begun = time.perf_counter()
                found[way] = [sample(demo, model, *run, STEPS, side) for run in runs]
                seconds[way].append(time.perf_counter() - begun)
        for way in ways:
            pairs = zip(seconds["full"], seconds[way], strict=True)
            row = {"kind": "caching", "model": "FLUX", "side": side, "steps": STEPS, "cfg": 1.0}
            row |= {"with": name, "way": way, "pictures": len(runs), "rounds": rounds}
            row["speedup"] = statistics.median(a / b for a, b in pairs)
            if way in ("small", "both"):
                row["coarse"] = sum(
                    stage.evaluations for stage in two_sizes.report_of(ways[way]).coarse
                )
            if way == "both":
                row["psnr"] = mean_psnr(found["small"], found["both"])
            yield row


def mean_psnr(full: Sequence[Any], others: Sequence[Any]) -> float:
    return statistics.fmean(harness.psnr(a, b) for a, b in zip(full, others, strict=True))


def cost_row(rounds: int, side: int = 64, steps: int = 8) -> dict[str, Any]:
    """Times of evaluations, in turns: full, small by the node, small from the beginning."""
    demo = harness.Demo()
    node = two_sizes.progressive(demo.model, mode="custom", switch_sigma=0.001, min_full_steps=0)
    seconds: dict[str, list[float]] = {"full": [], "node": [], "small": []}
    for _ in range(rounds + 1):
        for name, model, size in (
            ("full", demo.model, side), ("node", node, side), ("small", demo.model, side // 2),
        ):  # fmt: skip
            # A lever that only watches: its stages time the guider's predictions alike.
            watched = model if name == "node" else timed(model, seconds[name])
            sample(demo, watched, demo.prompts[0], SEED, 1.0, steps, size)
            if name == "node":
                seconds[name].append(two_sizes.report_of(node).stages[0].each)
    full, small, alone = (statistics.median(seconds[n][1:]) for n in ("full", "node", "small"))
    quick = two_sizes.progressive(demo.model, mode="fast")
    ratios = []
    for _ in range(rounds):
        begun = time.perf_counter()
        sample(demo, demo.model, demo.prompts[0], SEED, 1.0, STEPS, side)
        between = time.perf_counter()
        sample(demo, quick, demo.prompts[0], SEED, 1.0, STEPS, side)
        ratios.append((between - begun) / (time.perf_counter() - between))
    coarse = two_sizes.report_of(quick).stages[0].evaluations
    formula = STEPS / (STEPS - coarse + coarse * alone / full)
    return {
        "steps": STEPS, "coarse": coarse, "speedup": statistics.median(ratios), "formula": formula,
        "kind": "cost", "model": "FLUX", "side": side, "full_ms": 1000 * full,
        "ms": 1000 * small, "share": small / full, "extra_share": (small - alone) / full,
    }  # fmt: skip


def timed(model: Any, seconds: list[float]) -> Any:
    """A MODEL whose mean seconds a prediction are noted, one number a run."""
    from comfy.patcher_extension import WrappersMP

    each: list[float] = []

    def predict(executor: Any, *args: Any, **kwargs: Any) -> Any:
        begun = time.perf_counter()
        found = executor(*args, **kwargs)
        each.append(time.perf_counter() - begun)
        return found

    def run(executor: Any, *args: Any, **kwargs: Any) -> Any:
        found = executor(*args, **kwargs)
        seconds.append(statistics.fmean(each))
        return found

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.PREDICT_NOISE, "benchmark_time", predict)
    watched.add_wrapper_with_key(WrappersMP.OUTER_SAMPLE, "benchmark_time", run)
    return watched


def add_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--prompts", type=int, default=8, help="default: %(default)s")
    parser.add_argument("--steps", type=int, nargs="+", default=[20, 28])
    parser.add_argument("--cfg", type=float, nargs="+", default=[1.0, 3.0])
    parser.add_argument("--rounds", type=int, default=15, help="of cost; default: %(default)s")
    parser.add_argument("--models", nargs="*", default=list(SIZES), help="default: both demos")
    parser.add_argument(
        "--kinds", nargs="+", default=list(KINDS), choices=KINDS,
        help="what is measured; rows of other kinds in the output file are kept",
    )  # fmt: skip
    parser.add_argument("--busy", action="store_true", help="note that others used the machine")
    parser.add_argument("--output", type=Path, default=harness.RESULTS / "progressive.json")


def main(options: argparse.Namespace, environment: Any) -> int:
    rows: list[dict[str, Any]] = []
    if "closed form" in options.kinds:
        rows += ClosedForm().rows()
    for kind in options.models if "demo" in options.kinds else ():
        rows += demo_rows(kind, options)
    for name in checks.CHECKS if "two sizes" in options.kinds else ():
        rows += two_sizes.TwoSizes(name, options.prompts).rows(options.steps, options.cfg)
    if "caching" in options.kinds:
        rows += caching_rows(options.rounds, options.prompts)
    if "cost" in options.kinds:
        rows.append(cost_row(options.rounds))
    harness.show(*rows)
    data = {"environment": harness.describe(environment), "busy": options.busy}
    kept = []
    if options.output.exists():
        before = json.loads(options.output.read_text(encoding="utf-8"))["rows"]
        kept = [row for row in before if row["kind"] not in options.kinds]
    data["rows"] = sorted(
        [*kept, *map(harness.rounded, rows)], key=lambda r: KINDS.index(r["kind"])
    )
    harness.write(options.output, data)
    return 0


if __name__ == "__main__":
    harness.run(__file__, add_options, main)

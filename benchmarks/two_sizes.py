"""Progressive Resolution on the check models, which were trained at two sizes.

So many of the first steps at half the side, each way against the full run of the same noise:

- ``node``: the network's call made small, as the node does;
- ``dct_rewind``: as SGLang-Diffusion does, the latent itself is small and noise fills in when it
  grows; with fresh noise, and with that of the full run;
- ``plain``: all at full size, so many fewer steps that it takes as long where an evaluation at half
  the side costs a quarter, as its tokens do. With a few dozen tokens it costs as much as a full one
  (``cost of half``), and nothing could be won.

``psnr`` is the mean over the prompts, ``worst`` the least of them, ``band`` how much more energy
the lowest frequencies have than in the full run, in dB. Nothing is tuned on these models.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

import checks
import harness

if TYPE_CHECKING:
    import torch

FIRST_SEED, FRESH_SEED = 5000, 6000
SHARES = (0.15, 0.3, 0.5, 0.7)
"""Of the steps that are small."""
QUARTER = 0.25
"""What half the side costs where a model is large enough that its tokens decide."""
LOWEST = 2.0
"""Cycles a picture below which the lowest band lies."""
FITTED = 64
"""How many drawn scenes the spectrum is fitted to."""


def progressive(model: Any, **settings: Any) -> Any:
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.progressive import ProgressiveSettings

    return host.attach_progressive(model, ProgressiveSettings(**settings))


def report_of(model: Any) -> Any:
    from dit_acceleration_pack.acceleration import host

    lever = host.lever_of(model, host.PROGRESSIVE_KEY)
    assert lever is not None
    return lever.last_report


class TwoSizes:
    """One check model and the ways to begin small."""

    def __init__(self, name: str, prompts: int) -> None:
        from dit_acceleration_pack.acceleration.progressive import Corner

        self.name, self.demo = name, checks.CHECKS[name]()
        self.side = self.demo.canvas.side
        self.corner = Corner((self.side,) * 2, (self.side // 2,) * 2)
        self.prompts = [(p, FIRST_SEED + i) for i, p in enumerate(self.demo.prompts[:prompts])]

    def spectrum(self) -> dict[str, Any]:
        """The power law of what the model was trained on."""
        import torch

        from dit_acceleration_pack.acceleration.progressive import fit

        canvas, generator = self.demo.canvas, torch.Generator().manual_seed(FIRST_SEED)
        labels = torch.arange(FITTED) % len(self.demo.prompts)
        drawn = self.demo.scenes.to_latent(self.demo.scenes.draw(canvas, labels, generator))
        law = fit(drawn)
        return {
            "kind": "two sizes", "model": self.name, "side": self.side, "way": "spectrum",
            "A": law.A, "beta": law.beta,
        }  # fmt: skip

    def full(self, model: Any, run: tuple[str, int], cfg: float, steps: int) -> torch.Tensor:
        return self.demo.sample(model, *run, cfg, steps).latent

    def part(
        self, x: torch.Tensor, prompt: str, cfg: float, sigmas: Sequence[float]
    ) -> torch.Tensor:
        """A noisy sample, further along some sigmas."""
        import comfy.sample
        import comfy.samplers
        import torch

        demo, inside = self.demo, self.demo.model.model
        begin = sigmas[0]
        # The host takes a picture and noise; what it makes of these is the sample itself.
        whole = begin >= 1.0
        latent = torch.zeros_like(x) if whole else inside.process_latent_out(x / (1 - begin))
        with torch.inference_mode():
            found = comfy.sample.sample_custom(
                demo.model, x if whole else torch.zeros_like(x), cfg,
                comfy.samplers.sampler_object("euler"), torch.tensor(sigmas),
                demo.conditioning(prompt), demo.conditioning(None), latent, disable_pbar=True,
            )  # fmt: skip
        return found if sigmas[-1] == 0 else inside.process_latent_in(found) * (1 - sigmas[-1])

    def rewound(
        self, run: tuple[str, int], cfg: float, sigmas: Sequence[float], coarse: int, fresh: bool
    ) -> torch.Tensor:
        """``dct_rewind`` of SGLang-Diffusion, with euler; see ``ClosedForm.grown``."""
        import comfy.sample

        prompt, seed = run
        noise = comfy.sample.prepare_noise(self.demo.empty(), seed)
        other = comfy.sample.prepare_noise(self.demo.empty(), FRESH_SEED + seed) if fresh else noise
        small = self.part(self.corner.down(noise), prompt, cfg, sigmas[: coarse + 1])
        sigma = sigmas[coarse]
        above = other - self.corner.up(self.corner.down(other))
        large = (self.corner.up(small) + above * sigma) * (2 / (1 + sigma))
        return self.part(large, prompt, cfg, [2 * sigma / (1 + sigma), *sigmas[coarse + 1 :]])

    def small(
        self, run: tuple[str, int], cfg: float, sigmas: Sequence[float], coarse: int
    ) -> torch.Tensor:
        """What the node makes."""
        switch = (sigmas[coarse - 1] + sigmas[coarse]) / 2
        model = progressive(self.demo.model, mode="custom", switch_sigma=switch, min_full_steps=0)
        found = self.full(model, run, cfg, len(sigmas) - 1)
        evaluations = report_of(model).stages[0].evaluations
        assert evaluations == coarse, f"{evaluations} evaluations were small, not {coarse}"
        return found

    def band(self, full: torch.Tensor, other: torch.Tensor) -> float:
        """How much more energy the lowest frequencies have, in dB."""
        import torch

        from dit_acceleration_pack.acceleration.progressive.corner import dct_matrix

        matrix = dct_matrix(self.side)
        order = torch.arange(self.side) / 2
        low = torch.hypot(order[:, None], order) < LOWEST
        # Without the mean, which most of the energy would be.
        low[0, 0] = False
        spectra = (matrix @ latent.double() @ matrix.T for latent in (full, other))
        before, after = (spectrum.square()[..., low].sum().item() for spectrum in spectra)
        return 10 * math.log10(after / before)

    def share(self) -> float:
        """What an evaluation at half the side costs, as a share of a full one: least times."""

        def seconds(side: int) -> float:
            empty = self.demo.empty(side)
            noise, found = empty + 0.5, []
            for _ in range(9):
                begun = time.perf_counter()
                self.part(noise, self.demo.prompts[0], 1.0, [1.0, 0.5])
                found.append(time.perf_counter() - begun)
            return min(found)

        return seconds(self.side // 2) / seconds(self.side)

    def rows(self, all_steps: Sequence[int], all_cfg: Sequence[float]) -> Iterator[dict[str, Any]]:
        yield self.spectrum()
        yield {
            "kind": "two sizes", "model": self.name, "side": self.side, "way": "cost of half",
            "share": self.share(),
        }  # fmt: skip
        for steps in all_steps:
            for cfg in all_cfg:
                yield from self.schedule(steps, cfg)

    def schedule(self, steps: int, cfg: float) -> Iterator[dict[str, Any]]:
        """Every way on one schedule."""
        sigmas = self.demo.sigmas(steps).tolist()
        full = [self.full(self.demo.model, run, cfg, steps) for run in self.prompts]
        for coarse in (round(steps * part) for part in SHARES):
            fewer = steps - round(coarse * (1 - QUARTER))
            ways = {
                "node": lambda run, n=coarse: self.small(run, cfg, sigmas, n),
                "dct_rewind": lambda run, n=coarse: self.rewound(run, cfg, sigmas, n, True),
                "dct_rewind, the full run's noise": lambda run, n=coarse: self.rewound(
                    run, cfg, sigmas, n, False
                ),
                "plain": lambda run, n=fewer: self.full(self.demo.model, run, cfg, n),
            }
            for way, sample in ways.items():
                others = [sample(run) for run in self.prompts]
                near = [harness.psnr(a, b) for a, b in zip(full, others, strict=True)]
                bands = [self.band(a, b) for a, b in zip(full, others, strict=True)]
                yield {
                    "kind": "two sizes", "model": self.name, "side": self.side, "steps": steps,
                    "cfg": cfg, "coarse": coarse, "sigma": sigmas[coarse], "way": way,
                    "plain_steps": fewer, "pictures": len(near), "psnr": statistics.fmean(near),
                    "worst": min(near), "band": statistics.fmean(bands),
                }  # fmt: skip

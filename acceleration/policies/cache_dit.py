"""Cache-DiT: DBCache with warm-up, threshold, limits and step masks, decided by the library."""

from __future__ import annotations

import math
import statistics
from dataclasses import asdict

import torch

from ..cache_dit.decisions import DecisionEngine
from ..cache_dit.library import require_installed
from ..errors import AccelerationError
from ..families import Structure
from ..report import RunReport
from ..settings.caching import CacheDiTSettings
from .base import (
    FAST_ALREADY,
    FEWEST_STEPS,
    Decision,
    Policy,
    RunInfo,
    Seen,
    adds_noise,
    corrector_notices,
)
from .masks import MIN_STEPS, longest_cached_run, mask_for

USED_UP = "max_cached_steps used up"


class CacheDiTPolicy(Policy):
    """Decisions for one branch, by the library."""

    def __init__(self, settings: CacheDiTSettings, info: RunInfo) -> None:
        self.first_blocks = settings.Fn_compute_blocks
        self.last_blocks = settings.Bn_compute_blocks
        self._settings = settings
        self._info = info
        self._mask = mask_for(settings, info.schedule.steps, info.own_steps)
        self._engine = DecisionEngine(settings, self._mask)
        self._computed_step = -1
        limit = settings.max_continuous_cached_steps
        self.max_age: float = limit if limit >= 0 else math.inf
        if self._mask is not None and settings.scm_policy == "static":
            self.max_age = longest_cached_run(self._mask)

    def decide(self, step: int, seen: Seen, blocked: str | None) -> Decision:
        reuse, diff = self._engine.decide(step, seen.since_computed)
        if blocked is not None:
            return Decision(False, blocked, diff, self._threshold)
        if not reuse:
            return Decision(False, self._why_computed(step, diff), diff, self._threshold)
        if self._computed_step < self._oldest_usable(step):
            # The branch paused for some steps, which the library's run length does not see.
            return Decision(False, "residual too old", diff, self._threshold)
        self._engine.reused(step)
        return Decision(True, "mask" if self._static else "below threshold", diff, self._threshold)

    @property
    def _threshold(self) -> float | None:
        """The threshold, None where only the step plan decides."""
        return None if self._static else self._settings.residual_diff_threshold

    @property
    def _static(self) -> bool:
        return self._mask is not None and self._settings.scm_policy == "static"

    def _oldest_usable(self, step: int) -> float:
        """The step at or after which a residual must have been computed to be used at ``step``."""
        if self._static and self._mask is not None:
            computed = [i for i, on in enumerate(self._mask[: step + 1]) if on]
            return computed[-1] if computed else 0
        limit = self._settings.max_continuous_cached_steps
        return step - limit if limit >= 0 else 0

    def _why_computed(self, step: int, diff: float | None) -> str:
        if self._engine.warming_up():
            return "warm-up"
        if self._mask is not None and self._mask[min(step, len(self._mask) - 1)]:
            return "mask"
        if self._settings.residual_diff_threshold == 0:
            return "threshold 0"
        if diff is not None and self._settings.residual_diff_threshold <= diff:
            return "above threshold"
        if 0 <= self._settings.max_cached_steps <= self._engine.cached_steps():
            return USED_UP
        return "limit of cached steps"

    def computed(self, step: int, signal: torch.Tensor, output: torch.Tensor | None) -> None:
        self._engine.computed(step)
        self._computed_step = step

    def explain(self, report: RunReport) -> str | None:
        settings, steps = self._settings, self._info.steps
        if settings.residual_diff_threshold == 0 and self._mask is None:
            return "residual_diff_threshold is 0, which never skips"
        if settings.max_cached_steps == 0 and not self._static:
            return "max_cached_steps is 0, which never skips"
        if any(e.reason == USED_UP for e in report.evaluations):
            return f"max_cached_steps allows {settings.max_cached_steps} skipped steps in all"
        whole = settings.warmup_interval == 1
        if whole and settings.max_warmup_steps >= steps / 2 and self._mask is None:
            few = steps < FEWEST_STEPS
            help_here = FAST_ALREADY if few else "lower max_warmup_steps or use Performance Mode"
            return (
                f"{steps} steps, warm-up {settings.max_warmup_steps}: only {self._skippable()} "
                f"could be skipped; {help_here}"
            )
        diffs = [e.diff for e in report.evaluations if e.diff is not None]
        if not diffs:
            return None
        typical = statistics.median(diffs)
        if adds_noise(self._info.sampler):
            return (
                f"the sampler {self._info.sampler} adds fresh noise in every step, so neighboring "
                f"steps differ by {typical:.2f} (threshold "
                f"{settings.residual_diff_threshold:g}): a sampler without noise, such as euler or "
                "dpmpp_2m, gains more"
            )
        if typical >= settings.residual_diff_threshold:
            return (
                f"neighboring steps differ by {typical:.2f}, above the threshold of "
                f"{settings.residual_diff_threshold:g}: raise residual_diff_threshold to skip more"
            )
        return None

    def _skippable(self) -> int:
        """How many steps after the warm-up could be skipped at most."""
        left = max(self._info.steps - self._settings.max_warmup_steps, 0)
        limit = self._settings.max_continuous_cached_steps
        return left if limit < 0 else left - left // (limit + 1)


class CacheDiT:
    """The technique behind Apply Cache-DiT."""

    name = "Cache-DiT"
    title = "Apply Cache-DiT"
    changes_pictures = True

    def __init__(self, settings: CacheDiTSettings) -> None:
        self.settings = settings

    def check(self, structure: Structure) -> None:
        require_installed("Apply Cache-DiT")
        first, last = self.settings.Fn_compute_blocks, self.settings.Bn_compute_blocks
        if first + last > structure.block_count:
            raise AccelerationError(
                f"Fn_compute_blocks {first} + Bn_compute_blocks {last} is {first + last}, but this "
                f"{structure.family.name} model has {structure.block_count} blocks: lower them so "
                f"that some blocks are left to skip (1 and 0 are the usual choice)."
            )
        if last and structure.family.last_blocks_need_all:
            raise AccelerationError(
                f"Bn_compute_blocks is {last}, but the last blocks of {structure.family.name} read "
                "what the skipped ones would have made: set Bn_compute_blocks to 0."
            )

    def notices(self, info: RunInfo) -> list[str]:
        steps = info.schedule.steps
        found = []
        preset = self.settings.scm_preset
        if preset != "none" and not self.settings.compute_bins and steps < MIN_STEPS:
            found.append(
                f"scm_preset {preset} needs at least {MIN_STEPS} steps and is off for this run of "
                f"{steps}; DBCache goes on alone"
            )
        if self.settings.Fn_compute_blocks + self.settings.Bn_compute_blocks == (
            info.structure.block_count
        ):
            found.append("Fn + Bn covers every block, so nothing can be skipped")
        planned = preset != "none" or bool(self.settings.compute_bins)
        if planned and self.settings.scm_policy == "static" and self.settings.max_cached_steps >= 0:
            found.append(
                "with scm_policy static the step plan decides alone, so max_cached_steps has no "
                "effect"
            )
        return found + corrector_notices(self.settings.corrector, info.sampler)

    def open(self, info: RunInfo) -> CacheDiTPolicy:
        return CacheDiTPolicy(self.settings, info)

    def describe(self) -> dict[str, object]:
        return asdict(self.settings)

"""cache-dit's decisions, for one branch.

The library's decision engine (``CachedContextManager`` with ``DBCacheConfig``) is used as it is.
Its step is set from outside: it comes from the sigma schedule instead of a call count.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch

from ..settings.caching import CacheDiTSettings
from .library import load

PREFIX = "Fn_residual"


@cache
def _without_compiler_guards(manager: type) -> Any:
    """The library's manager with its methods called directly.

    Each of its small methods keeps torch.compile out by a wrapper of its own, some thirty of them
    a decision. Our gates keep the compiler out of the whole decision already.
    """
    names = [n for n, m in vars(manager).items() if hasattr(m, "_torchdynamo_orig_callable")]
    plain = {n: vars(manager)[n]._torchdynamo_orig_callable for n in names}
    return type(manager.__name__, (manager,), plain)


class DecisionEngine:
    """cache-dit's decisions for one branch.

    The library compares signals itself. What it is given is a number in place of them, as one
    reading of the device serves all who ask: two scalars that differ by the measured change.
    """

    BRANCH = "branch"

    def __init__(self, settings: CacheDiTSettings, mask: list[int] | None) -> None:
        _, contexts = load()
        manager = _without_compiler_guards(contexts.CachedContextManager)
        self._manager = manager("dit_acceleration", persistent_context=True)
        self._config = contexts.DBCacheConfig(
            Fn_compute_blocks=settings.Fn_compute_blocks,
            Bn_compute_blocks=settings.Bn_compute_blocks,
            residual_diff_threshold=settings.residual_diff_threshold,
            max_warmup_steps=settings.max_warmup_steps,
            warmup_interval=settings.warmup_interval,
            max_cached_steps=settings.max_cached_steps,
            max_continuous_cached_steps=settings.max_continuous_cached_steps,
            enable_separate_cfg=False,
            steps_computation_mask=mask,
            steps_computation_policy=settings.scm_policy,
        )

    def decide(self, step: int, change: float | None) -> tuple[bool, float | None]:
        """Ask the library whether to reuse at ``step``.

        Parameters
        ----------
        step
            Index in the schedule; the same step may be asked several times.
        change
            Relative change of the signal since the last computed evaluation, None before one.

        Returns
        -------
        (reuse, diff)
            ``diff`` is the change that the library looked at, None where none was needed.
        """
        manager = self._manager
        context = manager.set_context(self.BRANCH, cache_config=self._config)
        if context.transformer_executed_steps == 0 or context.get_current_step() != step:
            # mark_step_begin() adds one, then compares with the previous step of the schedule.
            context.executed_steps = step
            manager.mark_step_begin()
        context.residual_diffs.pop(str(step), None)
        one = torch.ones(1, dtype=torch.float64)
        if change is not None:
            manager.set_Fn_buffer(one, prefix=PREFIX)
        reuse = bool(manager.can_cache(one - (change or 0.0), prefix=PREFIX))
        looked = manager.get_current_step_residual_diff()
        return reuse, change if looked is not None and looked > 0 else looked

    def warming_up(self) -> bool:
        """Whether the last decision fell into the warm-up."""
        return bool(self._context.is_in_warmup())

    def cached_steps(self) -> int:
        """How many steps were served from the cache."""
        return len(self._context.cached_steps)

    def reused(self, step: int) -> None:
        """Tell the library that ``step`` was served from the cache."""
        context = self._context
        if not context.cached_steps or context.cached_steps[-1] != step:
            context.add_cached_step()

    def computed(self, step: int) -> None:
        """Tell the library that ``step`` was computed."""
        context = self._context
        if context.cached_steps and context.cached_steps[-1] == step:
            context.cached_steps.pop()
        context.continuous_cached_steps = 0

    @property
    def _context(self) -> Any:
        return self._manager.get_context(self.BRANCH)

"""The only module that touches cache-dit. Written against cache-dit 1.5.x.

The library's decision engine (``CachedContextManager`` with ``DBCacheConfig``) and its calibrators
are used as they are. Two things differ from the library's own hooks and are set from outside: the
step comes from the sigma schedule instead of a call count, and residuals live in our store.
Importing the library costs seconds, so it happens at first use.
"""

from __future__ import annotations

import importlib
import importlib.util
import math
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

import torch

from ..errors import AccelerationError, MissingPackageError
from ..signals import finite_or
from ..store.compact import BF16, FP8
from ..store.residual_store import ResidualStore, tensors_of
from .parking import Parking, kept_in

if TYPE_CHECKING:
    from ..settings.caching import CacheDiTSettings

REQUIREMENT = "cache-dit>=1.5.3,<1.6"
PREFIX = "Fn_residual"

# Parts of the calibrators' states that update() overwrites without reading them.
_OVERWRITTEN = ("dY_prev", "F_km1", "F_full_prev")

# The last computed tensor in the calibrators' states.
_LAST: dict[str, Callable[[Any], torch.Tensor]] = {
    "taylorseer": lambda state: state.state["dY_current"][0],
    "foca": lambda state: state.F_full,
    "dmd": lambda state: state.snapshots[-1][1],
}


def is_installed() -> bool:
    """Whether cache-dit can be imported, without importing it."""
    return importlib.util.find_spec("cache_dit") is not None


def require_installed(feature: str) -> None:
    """Raise MissingPackageError naming the pip command when cache-dit is missing."""
    if not is_installed():
        raise MissingPackageError(feature, REQUIREMENT)


def _library() -> Any:
    require_installed("Apply Cache-DiT")
    # The library attaches stdout handlers to its loggers on import; its level is read only once.
    os.environ.setdefault("CACHE_DIT_LOG_LEVEL", "WARNING")
    try:
        _hide_broken_xformers()
        import cache_dit
        from cache_dit.caching import cache_contexts
    except Exception as error:  # its imports run other packages, which fail in every way there is
        raise AccelerationError(
            f"The package cache-dit {version()} is installed but cannot be imported "
            f"({_first_cause(error)}): run `python -m pip install --upgrade '{REQUIREMENT}' "
            "diffusers transformers` with ComfyUI's Python and restart ComfyUI."
        ) from error
    return cache_dit, cache_contexts


@cache
def _hide_broken_xformers() -> None:
    """Keep an xformers that cannot be imported from taking diffusers and cache-dit with it.

    Each of its wheels is made for one version of torch. ComfyUI does without one that fails;
    diffusers, which cache-dit imports, does not (``diffusers/models/attention_processor.py``).
    """
    try:
        importlib.import_module("xformers.ops")
    except Exception:
        vars(importlib.import_module("diffusers.utils.import_utils"))["_xformers_available"] = False


def _first_cause(error: BaseException) -> str:
    """What went wrong at the bottom, on one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = str(error).strip().splitlines() or ["no message"]
    return f"{type(error).__name__}: {lines[0][:200]}"


def version() -> str | None:
    """Installed version of cache-dit, without importing it."""
    from importlib import metadata

    try:
        return metadata.version("cache-dit")
    except metadata.PackageNotFoundError:
        return None


def steps_mask(preset: str, steps: int) -> list[int] | None:
    """The library's own step computation mask, None where it refuses the step count."""
    cache_dit, _ = _library()
    try:
        return list(cache_dit.steps_mask(total_steps=steps, mask_policy=preset))
    except AssertionError:
        return None


def make_calibrator(kind: str, order: int) -> Any:
    """A fresh library calibrator: ``taylorseer``, ``foca`` or ``dmd``."""
    _, contexts = _library()
    from cache_dit.caching.cache_contexts import calibrators

    config = {
        "taylorseer": lambda: contexts.TaylorSeerCalibratorConfig(taylorseer_order=order),
        "foca": calibrators.FoCaCalibratorConfig,
        "dmd": calibrators.DMDCalibratorConfig,
    }[kind]()
    return calibrators.Calibrator(config)


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
        _, contexts = _library()
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


class CalibratedStream:
    """One library calibrator forecasting one tensor stream along schedule positions.

    The library counts calls; here its clock is set to the position in the schedule instead, so
    that irregular and repeated positions keep their true distance. Its tensors live in the store
    and are with the library only while it computes, on the device of the model. FoCa goes on from
    its own predictions and DMD fits differences of near tensors, which makes much of rounding
    (FoCa on the demo model at cfg 1: 45 dB to exact storage in fp8, 66 dB in bf16), so both keep
    bf16 where fp8 is chosen.
    """

    NAME = "residual"

    def __init__(self, kind: str, order: int, store: ResidualStore) -> None:
        self._calibrator = make_calibrator(kind, order)
        self._calibrator.maybe_init_state(self.NAME)
        self._parking = Parking(store, FP8 if kind == "taylorseer" else BF16)
        self._kind = kind
        self._shape: torch.Size | None = None
        self._before_last: dict[str, Any] | None = None
        self._last_position = -math.inf

    @property
    def _state(self) -> Any:
        return self._calibrator.states[self.NAME]

    def update(self, position: float, value: torch.Tensor) -> None:
        """Record a computed tensor; a second one at the same position replaces the first."""
        if position == self._last_position and self._before_last is not None:
            self._restore(self._before_last)
        self._before_last = self._snapshot()
        self._shape = value.shape
        with self._fetched(value.device, leave=("dY_prev",) if self._kind == "taylorseer" else ()):
            self._state.current_step = position
            self._calibrator.update(value, name=self.NAME)
        self._last_position = position

    def predict(self, position: float, device: torch.device) -> torch.Tensor:
        """Forecast the tensor at a later position."""
        with self._fetched(device, leave=("dY_prev",)):
            self._state.current_step = position
            result: torch.Tensor = self._calibrator.approximate(name=self.NAME)
            return finite_or(result, _LAST[self._kind](self._state))

    @contextmanager
    def _fetched(self, device: torch.device, leave: tuple[str, ...]) -> Iterator[None]:
        """The state's tensors on a device, except those that the library will not read."""
        state = vars(self._state)
        state.update(self._parking.fetch(state, device, leave))
        yield
        # Not after an error: the run then drops the state.
        state.update(self._parking.park(state, self._shape))

    def tensors(self) -> list[torch.Tensor]:
        """Every tensor kept, for the memory report."""
        return tensors_of(kept_in([vars(self._state), self._before_last]))

    def _snapshot(self) -> dict[str, Any]:
        # One level deep: the library replaces lists and tensors, or appends to lists, but never
        # writes into a tensor. What an update overwrites unread is left out, so that a snapshot
        # keeps no tensor alive that the state itself does not keep.
        def shallow(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: shallow(v) for k, v in value.items() if k not in _OVERWRITTEN}
            return list(value) if isinstance(value, list) else value

        state = vars(self._state).items()
        return {name: shallow(value) for name, value in state if name not in _OVERWRITTEN}

    def _restore(self, snapshot: dict[str, Any]) -> None:
        for name, value in snapshot.items():
            current = vars(self._state)[name]
            if isinstance(current, dict):
                current.update(value)
            else:
                vars(self._state)[name] = value

"""Caching techniques on a MODEL: the host's wrappers around a sampling run and its evaluations."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Hashable
from typing import Any

import torch

from ..failures import failed_sentence, log_failure
from ..policies.base import Technique
from ..report import RunReport
from ..sampling.course import Call
from ..sampling.run import SamplingRun
from ..schedule import Schedule
from ..settings.sections import Resolved
from ..timing import unmarked
from . import prefetch
from .far_levers import FarCaching, split_of
from .levers import PROFILE_KEY, argument, lever_of, put
from .live_report import LiveNode
from .memory import HostMemory, expected_branches, hidden_bytes
from .model import network_of, sampler_name, structure_of
from .stages import gain_of, sampler_sigma, stage_of, switch_of
from .wrapping import ModelCall, RunLever, Sampling

log = logging.getLogger("dit_acceleration")

KEY = "dit_acceleration"
"""Key of the caching lever and of its run in ``transformer_options``."""


# The second expert begins where the first has taken away noise; a whole run begins at the full
# noise, up to the rounding of a scheduler.
SECOND_BEGINS_BELOW = 0.98


NOT_SAMPLED_WITH = (
    "this MODEL was loaded for a guider that samples with another MODEL, whose acceleration serves "
    "both: set it there (the first MODEL of Dual Model CFG Guider)"
)


OTHER_CACHE = (
    "the core's EasyCache or LazyCache is on the same model; two caches would work on each other's "
    "errors, so this one skips nothing: remove one of them"
)


class CachingAttachment(RunLever):
    """The caching lever. The run travels in the run's own ``transformer_options``."""

    key = KEY

    def __init__(
        self,
        technique: Technique,
        node_id: str | None = None,
        resolved: Resolved | None = None,
        second: Technique | None = None,
    ) -> None:
        self.technique = technique
        self.resolved = resolved
        self.second = second
        self.replaced: str | None = None
        super().__init__(LiveNode.of(node_id))

    @property
    def name(self) -> str:
        """The technique's name."""
        return self.technique.name

    @property
    def title(self) -> str:
        return self.technique.title

    @property
    def settings(self) -> Any:
        """What was asked for, for a settings file."""
        return self.technique.settings

    @property
    def changes_pictures(self) -> bool:
        return self.technique.changes_pictures

    def prepare(self, model: Any) -> None:
        """Check the settings against the model, and note whom this lever replaces."""
        structure = structure_of(model)
        if structure is not None:
            self.technique.check(structure)
        else:
            log.warning(
                "%s: %s is not a diffusion transformer this pack knows; it will be looked at when "
                "it first runs.",
                self.name,
                type(network_of(model)).__name__,
            )
        earlier = lever_of(model, KEY)
        self.replaced = earlier.name if earlier is not None else None
        if self.replaced:
            log.info("%s replaces %s on this model.", self.name, self.replaced)

    def wrappers(self) -> list[tuple[str, Callable[..., Any]]]:
        """Open and close the sampling run, ask for its memory, run every model call through it."""
        from comfy.patcher_extension import WrappersMP

        return [
            *super().wrappers(),
            (WrappersMP.PREPARE_SAMPLING, self.prepare_sampling),
            (WrappersMP.PREDICT_NOISE, self.predict_noise),
            (WrappersMP.APPLY_MODEL, self.apply_model),
        ]

    def _open(self, sampling: Sampling) -> SamplingRun | FarCaching:
        guider, patcher, sigmas = sampling.guider, sampling.patcher, sampling.sigmas
        schedules = patcher.get_model_object("model_sampling")
        technique, resolved = self.technique, self.resolved
        second = self.second is not None and is_second_expert(patcher, schedules, sigmas)
        if second and self.second is not None and resolved is not None:
            technique, resolved = self.second, resolved.second
        window = tuple(
            float(schedules.percent_to_sigma(percent))
            for percent in (technique.settings.start_percent, technique.settings.end_percent)
        )
        listener = self.shown.listener() if self.shown is not None else None
        split = split_of(sampling.options)
        run: SamplingRun | FarCaching
        if split is not None:
            run = FarCaching(split, technique, sampling, (window[0], window[1]), listener)
        else:
            run = SamplingRun(
                technique,
                Schedule.from_sigmas(
                    sigmas.tolist(),
                    float(getattr(schedules, "sigma_max", math.inf)),
                    gain_of(sampling.options),
                ),
                sampler_name(sampling.sampler),
                network_of(patcher),
                (window[0], window[1]),
                HostMemory(patcher, expected_branches(guider)),
                listener,
            )
        if "easycache" in patcher.model_options.get("transformer_options", {}):
            run.run_plainly(OTHER_CACHE)
        run.report.came_from(resolved)
        run.report.switch = switch_of(sampling.options)
        if second:
            run.report.notice(
                "this run begins below the full noise, as the second expert of Wan 2.2 does, so "
                "the server's values for it were used"
            )
        run.report.took_the_place_of(self.replaced)
        return run

    def _close(self, run: SamplingRun | FarCaching, finished: bool) -> None:
        run.close(finished)

    def _not_opened(self, error: Exception) -> None:
        log_failure(error)
        self.last_report = RunReport(self.name, explanation=failed_sentence(error))

    def _not_closed(
        self, run: SamplingRun | FarCaching, error: Exception, device: torch.device
    ) -> None:
        run.give_up(device, error)

    def predict_noise(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """PREDICT_NOISE: ``(x, timestep, model_options, seed)``."""
        try:
            options = argument(args, kwargs, 2, "model_options") or executor.class_obj.model_options
            run: SamplingRun | FarCaching | None = options.get("transformer_options", {}).get(KEY)
            if run is not None:
                run.begin_prediction()
        except Exception as error:
            log_failure(error)
        return executor(*args, **kwargs)

    def prepare_sampling(
        self, executor: Any, model: Any, noise_shape: Any, *args: Any, **kwargs: Any
    ) -> Any:
        """PREPARE_SAMPLING: ``(model, noise_shape, conds, model_options, …)``."""

        def load() -> Any:
            return executor(model, noise_shape, *args, **kwargs)

        run: SamplingRun | FarCaching | None = None
        try:
            given = argument(args, kwargs, 1, "model_options") or {}
            run = given.get("transformer_options", {}).get(KEY)
            structure = structure_of(model) if run is not None else None
            one = hidden_bytes(model, structure, noise_shape) if structure is not None else 0
            needed = run.expected_tensors * one if run is not None else 0
            where = run.residual_device if run is not None else ""
        except Exception as error:
            _failed(run, model.load_device, error)
            return load()
        if run is None:
            self.last_report = RunReport(self.name, explanation=NOT_SAMPLED_WITH)
        if run is None or structure is None or not isinstance(run.memory, HostMemory):
            return load()
        return run.memory.prepare(where, needed, one, load)

    @staticmethod
    def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
        """APPLY_MODEL: see ``ModelCall``."""
        call = ModelCall(executor, args, kwargs)
        run: SamplingRun | FarCaching | None = None
        try:
            run = call.run_of(KEY)
            course = None if run is None or call.network is None else _course(call)
        except Exception as error:
            _failed(run, call.x.device, error)
            return call.execute()
        return call.execute() if run is None or course is None else run.evaluate(course)


def _failed(run: SamplingRun | FarCaching | None, device: torch.device, error: Exception) -> None:
    """Something of ours went wrong before a run could see to it itself."""
    if run is None:
        log_failure(error)
    else:
        run.give_up(device, error)


def _course(call: ModelCall) -> Call:
    """The call as the engine sees it."""
    x, options = call.x, call.options
    return Call(
        execute=call.execute,
        network=call.network,
        sigma=sampler_sigma(options),
        key=(id(call.model), *branch_key(x, options, call.control, call.conditions)),
        label=branch_label(options),
        device=x.device,
        mark=getattr(options.get(PROFILE_KEY), "mark", unmarked),
        conds=len(options.get("cond_or_uncond", ())),
        part_lengths=tuple(math.prod(n[1:]) for n in call.kwargs.get("latent_shapes") or ()),
        obstacle=prefetch.obstacle,
        leave_out=prefetch.leave_out,
        outliving=prefetch.outliving,
        stage=stage_of(options),
    )


def branch_key(
    x: torch.Tensor,
    options: dict[str, Any],
    control: dict[str, Any] | None = None,
    given: dict[str, Any] | None = None,
) -> tuple[Hashable, ...]:
    """What evaluations that may share residuals have in common: all that the model is called with.

    The uuids of the conds alone do not do: the host gives the negative copy of a regional prompt
    its positive's uuid, sliding windows repeat them, and guidance such as skip-layer evaluates the
    same cond again with other patches or other inputs. A ControlNet that begins or ends in mid-run
    changes every residual as well. Values that an evaluation may have of its own (tensors' content,
    numbers) are left out; see ``tracks`` for how evaluations with the same key are told apart.
    """
    window = options.get("context_window")
    index_list = getattr(window, "index_list", None)
    adds = [(n, [a is not None for a in found]) for n, found in (control or {}).items() if found]
    return (
        str(x.device),
        tuple(x.shape),
        tuple(options.get("uuids", ())),
        tuple(options.get("cond_or_uncond", ())),
        tuple(index_list) if index_list is not None else None,
        str(sorted(adds)),
        _kinds(given or {}),
        _kinds({name: options.get(name) for name in ("patches", "patches_replace")}),
        _kinds(
            {k: v for k, v in options.items() if k not in SET_INSIDE and isinstance(v, bool | str)}
        ),
    )


SET_INSIDE = ("block_type",)
"""Options that the host's networks set themselves, in the middle of an evaluation."""


def _kinds(value: Any) -> Hashable:
    """What a value is like: shapes of tensors, code of functions, words, types of all else."""
    if isinstance(value, torch.Tensor):
        return tuple(value.shape)
    if isinstance(value, dict):
        return frozenset((str(key), _kinds(one)) for key, one in value.items())
    if isinstance(value, list | tuple):
        return tuple(_kinds(one) for one in value)
    if isinstance(value, functools.partial):
        return _kinds(value.func)
    if value is None or isinstance(value, bool | str):
        return value
    # Functions are often made anew for every step, from the same code.
    code = getattr(getattr(value, "__func__", value), "__code__", None)
    return (id(code) if code is not None else type(value).__qualname__, id(_owner(value)))


def _owner(value: Any) -> Any:
    """The object of a bound method; what else is called is known by its code."""
    return getattr(value, "__self__", None)


def branch_label(options: dict[str, Any]) -> str:
    """The branch's name for people, such as ``"cond"`` or ``"uncond+cond"``."""
    names = {0: "cond", 1: "uncond"}
    kinds = options.get("cond_or_uncond", ())
    label = "+".join(names.get(kind, f"cond {kind}") for kind in kinds) or "model"
    window = options.get("context_window")
    index_list = getattr(window, "index_list", None)
    if index_list:
        label += f" [{index_list[0]}-{index_list[-1]}]"
    if options.get("patches_replace", {}).get("dit"):
        label += " (patched)"
    return label


def is_second_expert(patcher: Any, sampling: Any, sigmas: Any) -> bool:
    """Whether a run looks like the low-noise part of a model of two experts."""
    structure = structure_of(patcher)
    if structure is None or not structure.family.two_experts or not len(sigmas):
        return False
    return float(sigmas[0]) < SECOND_BEGINS_BELOW * float(sampling.sigma_max)


def attach(
    model: Any,
    technique: Technique,
    node_id: str | None = None,
    resolved: Resolved | None = None,
    second: Technique | None = None,
) -> Any:
    """A clone of a MODEL that samples with a caching technique.

    A technique attached before is replaced, as one model has one caching policy. On a server whose
    operator has locked what changes pictures, the model samples unaccelerated, and the report says
    so.

    Parameters
    ----------
    node_id
        The node that shows the runs while they run.
    resolved
        Where the settings come from, for the report.
    second
        What runs of the second expert of a model of two use instead.

    Raises
    ------
    AccelerationError
        When the input is no MODEL, or the settings cannot work on it.
    """
    return put(model, KEY, CachingAttachment(technique, node_id, resolved, second))


def last_report(model: Any) -> RunReport | None:
    """The caching report of the last finished run of a MODEL or of a clone of it."""
    lever = lever_of(model, KEY)
    report = lever.last_report if lever is not None else None
    return report if isinstance(report, RunReport) else None

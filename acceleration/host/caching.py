"""Caching techniques on a MODEL: the host's wrappers around a sampling run and its evaluations."""

from __future__ import annotations

import functools
import logging
import math
from collections.abc import Callable, Hashable
from typing import Any

import torch

from ..errors import AccelerationError
from ..failures import failed_sentence, log_failure
from ..policies.base import Technique
from ..report import RunReport
from ..sampling.course import Call
from ..sampling.run import SamplingRun
from ..schedule import Schedule
from ..settings.sections import Resolved
from ..timing import unmarked
from . import prefetch
from .levers import PROFILE_KEY, Reports, argument, lever_of, put, require_model
from .live_report import LiveNode
from .memory import HostMemory, expected_branches, hidden_bytes
from .model import network_of, sampler_name, structure_of

log = logging.getLogger("dit_acceleration")

KEY = "dit_acceleration"
"""Key of the caching lever and of its run in ``transformer_options``."""


# Families whose checkpoints come in pairs, one expert for high and one for low noise (Wan 2.2).
TWO_EXPERTS = ("Wan", "Wan VACE")
# The second expert begins where the first has taken away noise; a whole run begins at the full
# noise, up to the rounding of a scheduler.
SECOND_BEGINS_BELOW = 0.98


NOT_SAMPLED_WITH = (
    "this MODEL was loaded for a guider that samples with another MODEL, whose acceleration serves "
    "both: set it there (the first MODEL of Dual Model CFG Guider)"
)


class CachingAttachment(Reports):
    """The caching lever. The run travels in the run's own ``transformer_options``."""

    def __init__(
        self,
        technique: Technique,
        replaced: str | None = None,
        node_id: str | None = None,
        resolved: Resolved | None = None,
        second: Technique | None = None,
    ) -> None:
        self.technique = technique
        self.resolved = resolved
        self.second = second
        self.replaced = replaced
        self._live = LiveNode(node_id) if node_id is not None else None
        super().__init__()

    @property
    def name(self) -> str:
        """The technique's name."""
        return self.technique.name

    @property
    def settings(self) -> Any:
        """What was asked for, for a settings file."""
        return self.technique.settings

    def wrappers(self) -> list[tuple[str, Callable[..., Any]]]:
        """Open and close the sampling run, ask for its memory, run every model call through it."""
        from comfy.patcher_extension import WrappersMP

        return [
            (WrappersMP.OUTER_SAMPLE, self.outer_sample),
            (WrappersMP.PREPARE_SAMPLING, self.prepare_sampling),
            (WrappersMP.PREDICT_NOISE, self.predict_noise),
            (WrappersMP.APPLY_MODEL, self.apply_model),
        ]

    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """OUTER_SAMPLE: ``(noise, latent_image, sampler, sigmas, …)``."""
        guider = executor.class_obj
        options = guider.model_options.setdefault("transformer_options", {})
        outer = options.get(KEY)
        try:
            sampler = argument(args, kwargs, 2, "sampler")
            sigmas = argument(args, kwargs, 3, "sigmas")
            memory = HostMemory(guider.model_patcher, expected_branches(guider))
            run = self._open(guider.model_patcher, sampler, sigmas, memory)
        except AccelerationError:
            raise
        except Exception as error:
            log_failure(error)
            self.last_report = RunReport(self.name, {}, explanation=failed_sentence(error))
            return executor(*args, **kwargs)
        options[KEY] = run
        finished = False
        try:
            output = executor(*args, **kwargs)
            finished = True
            return output
        finally:
            if outer is None:
                options.pop(KEY, None)
            else:
                options[KEY] = outer
            try:
                self.last_report = run.report
                log.info("%s", run.close(finished).sentence())
            except Exception as error:
                run.give_up(guider.model_patcher.load_device, error)

    def predict_noise(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """PREDICT_NOISE: ``(x, timestep, model_options, seed)``."""
        try:
            options = argument(args, kwargs, 2, "model_options") or executor.class_obj.model_options
            run: SamplingRun | None = options.get("transformer_options", {}).get(KEY)
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

        run: SamplingRun | None = None
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
            self.last_report = RunReport(self.name, {}, explanation=NOT_SAMPLED_WITH)
        if run is None or structure is None or not isinstance(run.memory, HostMemory):
            return load()
        return run.memory.prepare(where, needed, one, load)

    def _open(self, patcher: Any, sampler: Any, sigmas: Any, memory: HostMemory) -> SamplingRun:
        sampling = patcher.get_model_object("model_sampling")
        technique, resolved = self.technique, self.resolved
        second = self.second is not None and is_second_expert(patcher, sampling, sigmas)
        if second and self.second is not None and resolved is not None:
            technique, resolved = self.second, resolved.second
        window = tuple(
            float(sampling.percent_to_sigma(percent))
            for percent in (technique.settings.start_percent, technique.settings.end_percent)
        )
        run = SamplingRun(
            technique,
            Schedule.from_sigmas(sigmas.tolist(), float(getattr(sampling, "sigma_max", math.inf))),
            sampler_name(sampler),
            network_of(patcher),
            (window[0], window[1]),
            memory,
            self._live.listener() if self._live is not None else None,
        )
        if "easycache" in patcher.model_options.get("transformer_options", {}):
            run.run_plainly(
                "the core's EasyCache or LazyCache is on the same model; two caches would work on "
                "each other's errors, so this one skips nothing: remove one of them"
            )
        if resolved is not None:
            run.report.origins = dict(resolved.origins)
            for notice in resolved.notices:
                run.report.notice(notice)
        if second:
            run.report.notice(
                "this run begins below the full noise, as the second expert of Wan 2.2 does, so "
                "the server's values for it were used"
            )
        if self.replaced:
            run.report.notice(
                f"this node replaced {self.replaced}, set on the same model before it"
            )
        return run

    @staticmethod
    def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
        """APPLY_MODEL: ``(x, t, c_concat, c_crossattn, control, transformer_options, …)``."""
        run: SamplingRun | None = None
        try:
            options = argument(args, kwargs, 5, "transformer_options", {})
            run = options.get(KEY)
            network = getattr(executor.class_obj, "diffusion_model", None)
            call = None
            if run is not None and network is not None and "sigmas" in options:
                call = _call(executor, network, options, args, kwargs)
        except Exception as error:
            _failed(run, args[0].device, error)
            return executor(*args, **kwargs)
        if run is None or call is None:
            return executor(*args, **kwargs)
        return run.evaluate(call)


def _failed(run: SamplingRun | None, device: torch.device, error: Exception) -> None:
    """Something of ours went wrong before a run could see to it itself."""
    if run is None:
        log_failure(error)
    else:
        run.give_up(device, error)


def _call(
    executor: Any,
    network: Any,
    options: dict[str, Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
) -> Call:
    x, control = args[0], argument(args, kwargs, 4, "control")
    given = {"concat": argument(args, kwargs, 2, "c_concat")}
    given["context"] = argument(args, kwargs, 3, "c_crossattn")
    given |= {k: v for k, v in kwargs.items() if k not in ("control", "transformer_options")}
    return Call(
        execute=lambda: executor(*args, **kwargs),
        network=network,
        sigma=options["sigmas"],
        key=(id(executor.class_obj), *branch_key(x, options, control, given)),
        label=branch_label(options),
        device=x.device,
        mark=getattr(options.get(PROFILE_KEY), "mark", unmarked),
        conds=len(options.get("cond_or_uncond", ())),
        part_lengths=tuple(math.prod(one[1:]) for one in kwargs.get("latent_shapes") or ()),
        obstacle=prefetch.obstacle,
        leave_out=prefetch.leave_out,
        outliving=prefetch.outliving,
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
    if structure is None or structure.family.name not in TWO_EXPERTS or not len(sigmas):
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

    A technique attached before is replaced, as one model has one caching policy.

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
    require_model(model, technique.name)
    structure = structure_of(model)
    if structure is not None:
        technique.check(structure)
    else:
        log.warning(
            "%s: %s is not a diffusion transformer this pack knows; it will be looked at when it "
            "first runs.",
            technique.name,
            type(network_of(model)).__name__,
        )
    earlier = lever_of(model, KEY)
    replaced = earlier.name if earlier is not None else None
    if replaced:
        log.info("%s replaces %s on this model.", technique.name, replaced)
    return put(model, KEY, CachingAttachment(technique, replaced, node_id, resolved, second))


def last_report(model: Any) -> RunReport | None:
    """The caching report of the last finished run of a MODEL or of a clone of it."""
    lever = lever_of(model, KEY)
    report = lever.last_report if lever is not None else None
    return report if isinstance(report, RunReport) else None

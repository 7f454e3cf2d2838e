"""The only room that imports ComfyUI: its patch points, its model objects, its memory."""

from __future__ import annotations

import logging
from collections.abc import Callable, Hashable
from typing import Any

import torch

from .errors import AccelerationError
from .families import Structure, describe
from .policies import Technique
from .report import RunReport
from .run import Call, SamplingRun
from .schedule import Schedule

log = logging.getLogger("dit_acceleration")

KEY = "dit_acceleration"
"""Key of our wrappers, attachment and entry in ``transformer_options``."""


class CachingAttachment:
    """A technique attached to a MODEL. Holds settings and the last report, never tensors.

    Its two methods are the host's wrappers: one opens and closes the sampling run, the other runs
    every model call through it. The run travels in the run's own ``transformer_options``.
    """

    def __init__(self, technique: Technique, replaced: str | None) -> None:
        self.technique = technique
        self.replaced = replaced
        self.last_report: RunReport | None = None

    def outer_sample(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        """OUTER_SAMPLE: ``(noise, latent_image, sampler, sigmas, …)``."""
        guider = executor.class_obj
        sampler = kwargs.get("sampler", args[2] if len(args) > 2 else None)
        sigmas = kwargs.get("sigmas", args[3] if len(args) > 3 else None)
        run = self._open(guider.model_patcher, sampler, sigmas)
        options = guider.model_options.setdefault("transformer_options", {})
        options[KEY] = run
        finished = False
        try:
            output = executor(*args, **kwargs)
            finished = True
            return output
        finally:
            options.pop(KEY, None)
            self.last_report = run.close(finished)
            log.info("%s", self.last_report.sentence())

    def _open(self, patcher: Any, sampler: Any, sigmas: Any) -> SamplingRun:
        sampling = patcher.get_model_object("model_sampling")
        window = tuple(
            float(sampling.percent_to_sigma(percent))
            for percent in (self.technique.start_percent, self.technique.end_percent)
        )
        run = SamplingRun(
            self.technique,
            Schedule.from_sigmas(sigmas.tolist()),
            sampler_name(sampler),
            patcher.model.diffusion_model,
            (window[0], window[1]),
            free_memory,
        )
        if self.replaced:
            run.report.notice(
                f"this node replaced {self.replaced}, set on the same model before it"
            )
        return run

    @staticmethod
    def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
        """APPLY_MODEL: ``(x, t, c_concat, c_crossattn, control, transformer_options, …)``."""
        options = kwargs.get("transformer_options", args[5] if len(args) > 5 else {})
        run: SamplingRun | None = options.get(KEY)
        if run is None:
            return executor(*args, **kwargs)
        x = args[0]
        return run.evaluate(
            Call(
                execute=lambda: executor(*args, **kwargs),
                network=executor.class_obj.diffusion_model,
                sigma=float(options["sigmas"].flatten()[0]),
                key=branch_key(x, options),
                label=branch_label(options),
                device=x.device,
            )
        )


def branch_key(x: torch.Tensor, options: dict[str, Any]) -> Hashable:
    """Identity of the evaluations that may share residuals.

    The uuids of the conds alone do not do: the host gives the negative copy of a regional prompt
    its positive's uuid, sliding windows repeat them, and guidance such as skip-layer evaluates the
    same cond again with other patches.
    """
    window = options.get("context_window")
    index_list = getattr(window, "index_list", None)
    replaced = options.get("patches_replace", {}).get("dit", {})
    return (
        str(x.device),
        tuple(x.shape),
        tuple(options.get("uuids", ())),
        tuple(options.get("cond_or_uncond", ())),
        tuple(index_list) if index_list is not None else None,
        frozenset(replaced),
    )


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


def sampler_name(sampler: Any) -> str:
    """Short name of a SAMPLER, such as ``"euler_ancestral"``."""
    function = getattr(sampler, "sampler_function", None)
    name = getattr(function, "__name__", None) or type(sampler).__name__
    return str(name).removeprefix("sample_")


def free_memory(device: torch.device) -> int:
    """Free bytes of a device, as the host counts them."""
    import comfy.model_management

    return int(comfy.model_management.get_free_memory(device))


def network_of(model: Any) -> Any:
    """The network inside a MODEL, or None."""
    return getattr(getattr(model, "model", None), "diffusion_model", None)


def structure_of(model: Any) -> Structure | None:
    """The block structure of a MODEL, or None when it is not a transformer known here."""
    return describe(network_of(model))


def attach(model: Any, technique: Technique) -> Any:
    """A clone of a MODEL that samples with a caching technique.

    A technique attached before is replaced, as one model has one caching policy.

    Raises
    ------
    AccelerationError
        When the input is no MODEL, or the settings cannot work on it.
    """
    from comfy.patcher_extension import WrappersMP

    if not hasattr(model, "add_wrapper_with_key"):
        raise AccelerationError(
            f"{technique.name} needs a MODEL, got {type(model).__name__}: connect a model loader."
        )
    structure = structure_of(model)
    if structure is not None:
        technique.check(structure)
    else:
        log.warning(
            "%s: %s is not a diffusion transformer this pack knows, so the model runs uncached.",
            technique.name,
            type(network_of(model)).__name__,
        )
    earlier: CachingAttachment | None = model.get_attachment(KEY)
    replaced = earlier.technique.name if earlier is not None else None
    if replaced:
        log.info("%s replaces %s on this model.", technique.name, replaced)
    attachment = CachingAttachment(technique, replaced)
    patched = model.clone()
    wrappers: tuple[tuple[str, Callable[..., Any]], ...] = (
        (WrappersMP.OUTER_SAMPLE, attachment.outer_sample),
        (WrappersMP.APPLY_MODEL, attachment.apply_model),
    )
    for kind, wrapper in wrappers:
        patched.remove_wrappers_with_key(kind, KEY)
        patched.add_wrapper_with_key(kind, KEY, wrapper)
    patched.set_attachments(KEY, attachment)
    return patched


def last_report(model: Any) -> RunReport | None:
    """The report of the last finished run of a MODEL or of a clone of it."""
    attachment: CachingAttachment | None = model.get_attachment(KEY)
    return attachment.last_report if attachment is not None else None


def is_accelerated(model: Any) -> bool:
    """Whether a caching technique is attached to a MODEL."""
    return model.get_attachment(KEY) is not None

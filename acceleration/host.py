"""The only room that imports ComfyUI: its patch points, its model objects, its memory."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any

import torch

from .calibration import Calibration
from .errors import AccelerationError
from .families import Structure, TeaCacheFit, describe
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
            network_of(patcher),
            (window[0], window[1]),
            free_memory,
        )
        if "easycache" in patcher.model_options.get("transformer_options", {}):
            run.run_plainly(
                "the core's EasyCache or LazyCache is on the same model; two caches would work on "
                "each other's errors, so this one skips nothing: remove one of them"
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
        network = getattr(executor.class_obj, "diffusion_model", None)
        if run is None or network is None or "sigmas" not in options:
            return executor(*args, **kwargs)
        x = args[0]
        control = kwargs.get("control", args[4] if len(args) > 4 else None)
        return run.evaluate(
            Call(
                execute=lambda: executor(*args, **kwargs),
                network=network,
                sigma=options["sigmas"],
                key=(id(executor.class_obj), *branch_key(x, options, control)),
                label=branch_label(options),
                device=x.device,
            )
        )


def branch_key(
    x: torch.Tensor, options: dict[str, Any], control: dict[str, Any] | None = None
) -> tuple[Hashable, ...]:
    """Identity of the evaluations that may share residuals.

    The uuids of the conds alone do not do: the host gives the negative copy of a regional prompt
    its positive's uuid, sliding windows repeat them, and guidance such as skip-layer evaluates the
    same cond again with other patches. A ControlNet that begins or ends in mid-run changes every
    residual as well.
    """
    window = options.get("context_window")
    index_list = getattr(window, "index_list", None)
    adds = [(n, [a is not None for a in found]) for n, found in (control or {}).items() if found]
    replaced = options.get("patches_replace", {}).get("dit", {})
    return (
        str(x.device),
        tuple(x.shape),
        tuple(options.get("uuids", ())),
        tuple(options.get("cond_or_uncond", ())),
        tuple(index_list) if index_list is not None else None,
        frozenset(replaced),
        str(sorted(adds)),
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
            "%s: %s is not a diffusion transformer this pack knows; it will be looked at when it "
            "first runs.",
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


# -------------------------------------------------------------------- calibrations on disk


def checkpoint_identity(network: Any) -> str:
    """A fingerprint of a network's weights that LoRA does not change.

    Only vectors (norms, biases) are looked at: few LoRA formats touch them, they are small, and
    training always moves them.
    """
    network = getattr(network, "_orig_mod", network)
    digest = hashlib.sha256(f"{type(network).__module__}.{type(network).__qualname__}".encode())
    vectors = sorted((n, p) for n, p in network.named_parameters() if p.ndim == 1)
    for name, parameter in vectors[:: max(len(vectors) // 32, 1)]:
        values = parameter.detach()[:64].float().cpu().numpy()
        digest.update(f"{name}{tuple(parameter.shape)}".encode() + values.tobytes())
    return digest.hexdigest()[:24]


def calibration_file(identity: str) -> Path:
    """Where the calibration of a checkpoint is kept, in the host's user folder."""
    import folder_paths

    return (
        Path(folder_paths.get_user_directory()) / "dit_acceleration" / f"teacache_{identity}.json"
    )


def save_calibration(calibration: Calibration) -> Path:
    """Write a calibration; a half-written file never takes the place of a whole one."""
    path = calibration_file(calibration.identity)
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_suffix(".part")
    part.write_text(json.dumps(calibration.as_dict(), indent=1), encoding="utf-8")
    part.replace(path)
    return path


def calibrated_fit(network: Any) -> TeaCacheFit | None:
    """What Calibrate TeaCache stored for this network, or None."""
    path = calibration_file(checkpoint_identity(network))
    if not path.exists():
        return None
    try:
        return Calibration.from_dict(json.loads(path.read_text(encoding="utf-8"))).fit()
    except (AccelerationError, json.JSONDecodeError, KeyError) as error:
        log.warning("The TeaCache calibration %s is ignored: %s", path.name, error)
        return None


def sample(model: Any, **arguments: Any) -> Any:
    """Sample as the host's KSampler does; see ``nodes.common_ksampler`` for the arguments."""
    import nodes as host_nodes

    return host_nodes.common_ksampler(model, **arguments)


def sampler_choices() -> tuple[list[str], list[str]]:
    """Names of the host's samplers and schedulers."""
    import comfy.samplers

    return list(comfy.samplers.SAMPLER_NAMES), list(comfy.samplers.SCHEDULER_NAMES)

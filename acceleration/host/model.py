"""What the engine asks of the host's MODEL and samplers."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

from ..families import Structure, describe
from ..lack_of_memory import is_out_of_memory


def sampler_name(sampler: Any) -> str:
    """Short name of a SAMPLER, such as ``"euler_ancestral"``."""
    function = getattr(sampler, "sampler_function", None)
    name = getattr(function, "__name__", None) or type(sampler).__name__
    return str(name).removeprefix("sample_")


def network_of(model: Any) -> Any:
    """The network inside a MODEL, or None."""
    return getattr(getattr(model, "model", None), "diffusion_model", None)


def structure_of(model: Any) -> Structure | None:
    """The block structure of a MODEL, or None when it is not a transformer known here."""
    return describe(network_of(model))


def sample(model: Any, **arguments: Any) -> Any:
    """Sample as the host's KSampler does; its ``common_ksampler`` has the arguments."""
    # By name, as this is the host's module and not our package of that name.
    return importlib.import_module("nodes").common_ksampler(model, **arguments)


def is_cancel(error: BaseException) -> bool:
    """Whether an error is the host's Cancel, which in older hosts is an ordinary Exception."""
    import comfy.model_management

    return isinstance(error, comfy.model_management.InterruptProcessingException)


def is_for_the_host(error: BaseException) -> bool:
    """Whether an error is Cancel or says that memory ran out."""
    return is_cancel(error) or is_out_of_memory(error)


def progress(total: int) -> Callable[[int], None]:
    """A progress bar on the running node; telling it how far it is also lets Cancel through."""
    import comfy.utils

    bar = comfy.utils.ProgressBar(total)
    return lambda done: bar.update_absolute(done)


def sampler_choices() -> tuple[list[str], list[str]]:
    """Names of the host's samplers and schedulers."""
    import comfy.samplers

    return list(comfy.samplers.SAMPLER_NAMES), list(comfy.samplers.SCHEDULER_NAMES)

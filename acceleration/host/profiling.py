"""Profiling on a MODEL: the host's wrappers around a sampling run and its evaluations."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from ..errors import AccelerationError
from ..profiling.profiler import ProfiledCall, ProfileRun, ProfileSettings
from ..schedule import Schedule
from .caching import branch_label
from .levers import (
    COMPILE_KEY,
    PROFILE_KEY,
    lever_of,
    put,
    require_model,
    without,
)
from .wrapping import ModelCall, RunLever, Sampling


class ProfilingLever(RunLever):
    """The profiling lever. The run travels in the run's own ``transformer_options``."""

    name = "Profile Sampling"
    key = PROFILE_KEY

    def __init__(self, settings: ProfileSettings, filename_prefix: str) -> None:
        self.settings = settings
        self.filename_prefix = filename_prefix
        super().__init__()

    def wrappers(self) -> list[tuple[str, Callable[..., Any]]]:
        """One opens and closes the profile of a run, the other passes every model call."""
        from comfy.patcher_extension import WrappersMP

        return [*super().wrappers(), (WrappersMP.APPLY_MODEL, self.apply_model)]

    def _open(self, sampling: Sampling) -> ProfileRun:
        device = getattr(sampling.patcher, "load_device", torch.device("cpu"))
        schedule = Schedule.from_sigmas(sampling.sigmas.tolist())
        return ProfileRun(self.settings, schedule, device, output_folder(), self._new_file)

    def _close(self, run: ProfileRun, finished: bool) -> None:
        run.close(finished)

    @staticmethod
    def apply_model(executor: Any, *args: Any, **kwargs: Any) -> Any:
        """APPLY_MODEL: see ``ModelCall``."""
        call = ModelCall(executor, args, kwargs)
        run: ProfileRun | None = call.run_of(PROFILE_KEY)
        network, options = call.network, call.options
        if run is None or network is None:
            return call.execute()
        return run.evaluate(
            ProfiledCall(
                execute=call.execute,
                network=network,
                sigma=options["sigmas"],
                branch=branch_label(options),
                device=call.x.device,
                is_compiled=lambda: is_compiled(network, options),
            )
        )

    def _new_file(self, ending: str) -> Path:
        """A new file in the host's output folder, numbered as the host numbers pictures."""
        import folder_paths

        folder, name, counter, _, _ = folder_paths.get_save_image_path(
            self.filename_prefix, str(output_folder())
        )
        return Path(folder) / f"{name}_{counter:05}_{ending}"


def is_compiled(network: Any, options: dict[str, Any]) -> bool:
    """Whether torch.compile is on a network, or will be put on it further in."""
    from comfy.patcher_extension import WrappersMP

    if COMPILE_KEY in options.get("wrappers", {}).get(WrappersMP.APPLY_MODEL, {}):
        return True
    return any(
        hasattr(module, "_orig_mod") or getattr(module, "_compiled_call_impl", None) is not None
        for module in network.modules()
    )


def profile(model: Any, settings: ProfileSettings, filename_prefix: str) -> Any:
    """A MODEL whose sampling runs are profiled; with 0 evaluations, one whose runs are not.

    Raises
    ------
    AccelerationError
        When the input is no MODEL, or the file name would leave the output folder.
    """
    lever = ProfilingLever(settings, safe_prefix(filename_prefix))
    require_model(model, lever.name)
    if settings.evaluations:
        # Outside of caching, whose times must not contain the starting of a profiler.
        return put(model, PROFILE_KEY, lever, outermost=True)
    return without(model, PROFILE_KEY) if lever_of(model, PROFILE_KEY) is not None else model


def output_folder() -> Path:
    """Where the host saves."""
    import folder_paths

    return Path(folder_paths.get_output_directory()).resolve()


def safe_prefix(prefix: str) -> str:
    """A file name prefix without characters that some systems refuse.

    Raises
    ------
    AccelerationError
        When it is empty or leads out of the host's output folder.
    """
    cleaned = re.sub(r'[<>:"|?*\x00-\x1f]', "_", prefix.replace("\\", "/")).strip()
    output = output_folder()
    target = (output / cleaned).resolve()
    if target == output or not target.is_relative_to(output) or cleaned.endswith("/"):
        raise AccelerationError(
            f"filename_prefix is {prefix!r}, which names no file inside ComfyUI's output folder: "
            "use a name such as profile/sampling."
        )
    return cleaned

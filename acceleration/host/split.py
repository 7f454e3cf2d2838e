"""Split Across GPUs on a MODEL: its network runs in processes of its own, one a GPU."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import torch

from .. import cluster
from ..errors import AccelerationError
from ..families import describe
from ..parallel import SplitReport, why_whole
from ..parallel.parcels import is_plain
from ..parallel.report import NAME
from ..settings.parallel import ParallelSettings
from ..settings.sections import Resolved
from .far import SPLIT_KEY, far_model, is_far
from .levers import COMPILE_KEY, lever_of, put, require_model
from .live_report import LiveNode
from .model import network_of
from .quantize import QUANTIZE_KEY
from .split_orders import Loader
from .split_run import SplitRun, on_cpu
from .wrapping import RunLever, Sampling


class SplitAttachment(RunLever):
    """The lever. It knows how the network is loaded again, and has none of it."""

    name = NAME
    key = SPLIT_KEY

    def __init__(
        self,
        settings: ParallelSettings,
        gpus: int,
        loader: Loader,
        whole: str | None,
        node_id: str | None,
        resolved: Resolved | None,
    ) -> None:
        self.settings, self.gpus, self.loader = settings, gpus, loader
        self.whole = whole
        """Why tokens cannot be split, None where they can."""
        self.resolved = resolved
        super().__init__(LiveNode.of(node_id))

    def _open(self, sampling: Sampling) -> SplitRun:
        require_plain(sampling)
        report = SplitReport(settings=asdict(self.settings))
        report.came_from(self.resolved)
        listener = self.shown.listener(ranks=report.ranks) if self.shown is not None else None
        return SplitRun(self, sampling, report, listener)

    def _close(self, run: SplitRun, finished: bool) -> None:
        run.close(finished)

    def _not_opened(self, error: Exception) -> None:
        # There is no network here that could sample in its place.
        raise AccelerationError(_first_line(error)) from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).splitlines()), type(error).__name__)[:400]


# ---------------------------------------------------------------- what cannot travel


def require_plain(sampling: Sampling) -> None:
    """Refuse by name what would not reach the network.

    Raises
    ------
    AccelerationError
        Before sampling, with what it is and the way out.
    """
    patcher = sampling.patcher
    for name in patcher.object_patches:
        if name.startswith("diffusion_model"):
            raise _cannot(f"a patch that replaces {name}")
    options = sampling.options
    for kind in ("patches", "patches_replace"):
        for where, found in (options.get(kind) or {}).items():
            if found:
                raise _cannot(f"{_names(found)} (a patch of {where})")
    if options.get("optimized_attention_override") is not None:
        raise _cannot(f"the attention override {_names(options['optimized_attention_override'])}")
    if COMPILE_KEY in options.get("wrappers", {}).get("apply_model", {}):
        raise _cannot("torch.compile")
    if "multigpu_clones" in sampling.guider.model_options or patcher.additional_models.get(
        "multigpu"
    ):
        raise AccelerationError(
            f"ComfyUI's MultiGPU CFG Split and {NAME} are on the same model: remove one of them."
        )
    hooked = getattr(patcher, "forced_hooks", None) or patcher.hook_patches
    conds = getattr(sampling.guider, "conds", None) or {}
    if hooked or any(c.get("hooks") for found in conds.values() for c in found or ()):
        raise _cannot("a hook that changes weights while a picture is made (Create Hook LoRA …)")
    if any(c.get("gligen") for found in conds.values() for c in found or ()):
        raise _cannot("GLIGEN")
    for key, patches in patcher.patches.items():
        for patch in patches:
            function = patch[4] if len(patch) > 4 else None
            if function is not None:
                raise _cannot(f"a patch of the weights {key} that is a function")


def _cannot(what: str) -> AccelerationError:
    return AccelerationError(
        f"{what} cannot travel to the processes of the GPUs: remove it, or remove {NAME}."
    )


def _names(found: Any) -> str:
    """Names of functions and objects, for people."""
    values = found.values() if isinstance(found, dict) else found
    values = values if isinstance(values, list | tuple | type({}.values())) else [values]
    names = [getattr(one, "__qualname__", type(one).__qualname__) for one in values]
    return ", ".join(dict.fromkeys(names))


# ---------------------------------------------------------------- the node


def attach_split(
    model: Any,
    settings: ParallelSettings,
    node_id: str | None = None,
    resolved: Resolved | None = None,
) -> Any:
    """A clone of a MODEL without weights, whose network runs in processes, one a GPU.

    Raises
    ------
    AccelerationError
        When the input is no MODEL, there are not several GPUs, Ray is missing, or the model cannot
        be loaded again or split.
    """
    require_model(model, NAME)
    cluster.require_installed()
    network = network_of(model)
    earlier = lever_of(model, SPLIT_KEY)
    if is_far(network) and isinstance(earlier, SplitAttachment):
        gpus = _gpus(model, settings)
        lever = SplitAttachment(settings, gpus, earlier.loader, earlier.whole, node_id, resolved)
        return put(model, SPLIT_KEY, lever, outermost=True)
    whole = why_whole(describe(network), network)
    if whole is not None and settings.split == "sequence":
        raise AccelerationError(whole)
    if isinstance(lever_of(model, QUANTIZE_KEY), RunLever):
        raise AccelerationError(
            f"Quantize Model and {NAME} are on the same model, and quantized weights cannot "
            "travel to the processes of the GPUs yet: remove one of them."
        )
    loader = _loader(model)
    _require_plain_weights(network)
    gpus = _gpus(model, settings)
    lever = SplitAttachment(settings, gpus, loader, whole, node_id, resolved)
    # Outermost, so that levers inside find its run when they open theirs.
    return put(far_model(model, max(gpus, 2)), SPLIT_KEY, lever, outermost=True)


def _gpus(model: Any, settings: ParallelSettings) -> int:
    """How many processes; 0 where only the cluster knows."""
    if model.load_device.type != "cuda":
        if on_cpu() and settings.gpus > 1:
            return settings.gpus
        raise AccelerationError(
            f"{NAME} needs several NVIDIA or AMD GPUs, and this model runs on "
            f"{model.load_device.type}: remove the node."
        )
    if settings.ray_address:
        if settings.gpus == 1:
            raise AccelerationError("gpus is 1: it takes two or more to share a model, 0 for all.")
        return settings.gpus
    found = torch.cuda.device_count()
    wanted = settings.gpus or found
    if found < 2 or wanted < 2:
        raise AccelerationError(
            f"{NAME} needs two GPUs or more, and "
            + (f"gpus is {wanted}" if found > 1 else f"this computer has {found}")
            + ": remove the node, or name a Ray cluster in ray_address."
        )
    if wanted > found:
        raise AccelerationError(
            f"gpus is {wanted}, but this computer has {found}: lower it, or 0 for all."
        )
    return wanted


def _loader(model: Any) -> Loader:
    made = getattr(model, "cached_patcher_init", None)
    if made is None:
        raise AccelerationError(
            "this MODEL was loaded by a node that does not say how to load it again, so the "
            "processes of the GPUs cannot: use ComfyUI's Load Diffusion Model or Load Checkpoint."
        )
    factory, args, *part = made
    if not is_plain(args):
        raise AccelerationError(
            "this MODEL was loaded in a way that cannot be told to other processes (with "
            f"{_names(args)}, as GGUF models are): use a model in safetensors."
        )
    return Loader(factory.__module__, factory.__qualname__, tuple(args), *part)


def _require_plain_weights(network: Any) -> None:
    for name, weight in network.named_parameters():
        if type(weight) is not torch.nn.Parameter or type(weight.data) is not torch.Tensor:
            kind = type(weight).__name__
            raise AccelerationError(
                f"the weight {name} of this model is quantized ({kind}), which {NAME} does not "
                "take yet: use a model in bf16 or fp16."
            )

"""Tiny models of the host's real classes with random weights, and everything to sample them.

They show mechanics (what is called, what is added, what is left behind), not picture quality.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from tiny_data import made
from tiny_families import FLUX_CONFIG, POPULAR, TINY

__all__ = ["FLUX_CONFIG", "POPULAR", "TINY"]

CPU = torch.device("cpu")


def randomize(network: torch.nn.Module, seed: int = 0) -> None:
    """Fill a network with seeded weights that let signals through at about unit scale."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in network.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if parameter.ndim >= 2:
            value = noise / math.sqrt(parameter[0].numel()) * 0.8
        elif name.endswith("bias"):
            value = noise * 0.05
        else:
            value = 1 + noise * 0.05
        parameter.data.copy_(value.to(parameter.dtype))
    # Buffers are right as the host makes them, but for those that come with a checkpoint.
    for name, buffer in network.named_buffers():
        if name.endswith(("rotary_pos_emb.inv_freq", "rope.inv_freq")):
            buffer.copy_(10000.0 ** -torch.linspace(0, 1, buffer.numel() + 1)[:-1])
        elif name.endswith("tive_conditioning"):
            buffer.copy_(torch.randn(buffer.shape, generator=generator))


def bare_model(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """The host's BaseModel of one family, with whatever weights the memory held."""
    import comfy.supported_models

    tiny = TINY[name]
    config = getattr(comfy.supported_models, tiny.config)(tiny.unet_config)
    # Some classes of the host set sizes of their own; the tiny ones count.
    config.unet_config.update(
        (k, v) for k, v in tiny.unet_config.items() if k in config.unet_config
    )
    arguments: dict[str, Any] = {}
    if "device" in inspect.signature(config.set_inference_dtype).parameters:
        arguments["device"] = CPU
    config.set_inference_dtype(dtype, None, **arguments)
    weights = made(tiny.weights, torch.Generator().manual_seed(seed))
    model = config.get_model(weights, "", device=CPU)
    if tiny.prepare is not None:
        tiny.prepare(model.diffusion_model)
    return model


def make_model(
    name: str,
    dtype: torch.dtype = torch.float32,
    seed: int = 0,
    device: torch.device | None = None,
) -> Any:
    """A MODEL (ModelPatcher) of one family, on the device under test or the one given."""
    import comfy.model_management
    import comfy.model_patcher

    model = bare_model(name, dtype, seed)
    randomize(model.diffusion_model, seed)
    if device is None:
        device = comfy.model_management.get_torch_device()
    return comfy.model_patcher.ModelPatcher(model, load_device=device, offload_device=CPU)


def conditioning(name: str, seed: int) -> list[Any]:
    """A CONDITIONING of one prompt made of seeded noise."""
    tiny = TINY[name]
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = made(tiny.extra, generator)
    if tiny.pooled:
        options["pooled_output"] = torch.randn(1, tiny.pooled, generator=generator)
    width = tiny.context if isinstance(tiny.context, tuple) else (tiny.context,)
    return [[torch.randn(1, tiny.text_tokens, *width, generator=generator), options]]


def empty_latent(name: str, batch: int = 1, latent: tuple[Any, ...] | None = None) -> Any:
    """Zeros ``[B, C, …]``; for a model of several latents in one, the host's nested tensor."""
    shape = latent or TINY[name].latent
    if not isinstance(shape[0], tuple):
        return torch.zeros(batch, *shape)
    from comfy.nested_tensor import NestedTensor

    return NestedTensor([torch.zeros(batch, *part) for part in shape])


def forget_earlier_runs(model: Any, name: str) -> None:
    """Undo what the host itself leaves on the network of some families."""
    before_run = TINY[name].before_run
    if before_run is not None:
        before_run(model.model.diffusion_model)


def flat(samples: Any) -> torch.Tensor:
    """Samples as one tensor, also where the host returns a nested one."""
    if not getattr(samples, "is_nested", False):
        return samples
    return torch.cat([part.flatten(1) for part in samples.unbind()], dim=1)


def sample(
    model: Any,
    name: str,
    steps: int = 10,
    cfg: float = 1.0,
    sampler: str = "euler",
    seed: int = 0,
    batch: int = 1,
    latent: tuple[Any, ...] | None = None,
    positive: list[Any] | None = None,
    negative: list[Any] | None = None,
    **options: Any,
) -> torch.Tensor:
    """Sample as KSampler does; the latent ``[B, C, …]`` comes back."""
    import comfy.sample

    forget_earlier_runs(model, name)
    with torch.inference_mode():
        empty = empty_latent(name, batch, latent)
        noise = comfy.sample.prepare_noise(empty, seed)
        samples = comfy.sample.sample(
            model,
            noise,
            steps,
            cfg,
            sampler,
            options.pop("scheduler", "simple"),
            positive or conditioning(name, 1),
            negative or conditioning(name, 2),
            empty,
            disable_pbar=True,
            seed=seed,
            **options,
        )
        return flat(samples)


def watch(model: Any, before: Callable[..., None]) -> Any:
    """A clone that calls ``before(x, context, transformer_options)`` ahead of every evaluation."""
    from comfy.patcher_extension import WrappersMP

    def wrapper(executor: Any, *args: Any, **kwargs: Any) -> Any:
        before(args[0], args[3], args[5])
        return executor(*args, **kwargs)

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "tests_watch", wrapper)
    return watched


@contextmanager
def split_batches(model: Any, when: Callable[[int], bool] = lambda _: True) -> Iterator[None]:
    """Make the host evaluate cond and uncond apart, as it does when memory is short.

    ``when`` gets the number of the request for free memory, so that the host can be made to change
    its mind in mid-run.
    """
    kind = type(model)
    original = kind.get_free_memory
    calls = [0]

    def get_free_memory(self: Any, device: Any) -> int:
        calls[0] += 1
        return 0 if when(calls[0] - 1) else int(original(self, device))

    kind.get_free_memory = get_free_memory
    try:
        yield
    finally:
        kind.get_free_memory = original


class TinyControl:
    """A ControlNet in the eyes of the host: the same adds for every evaluation."""

    def __init__(self, adds: dict[str, list[torch.Tensor | None]]) -> None:
        self.adds = adds
        self.extra_hooks = None
        self.multigpu_clones: dict[Any, Any] = {}
        self.previous_controlnet = None

    def get_control(self, noisy: torch.Tensor, *_: Any) -> dict[str, list[torch.Tensor | None]]:
        """Like the host's: a new dict with tensors where the model is."""
        return {
            where: [None if add is None else add.to(noisy.device) for add in adds]
            for where, adds in self.adds.items()
        }

    def pre_run(self, *_: Any) -> None:
        pass

    def cleanup(self) -> None:
        pass

    def copy(self) -> TinyControl:
        return self

    def get_models(self) -> list[Any]:
        return []

    def get_models_only_self(self) -> list[Any]:
        return []

    def get_extra_hooks(self) -> list[Any]:
        return []

    def inference_memory_requirements(self, dtype: Any) -> int:
        return 0

    def get_instance_for_device(self, device: Any) -> TinyControl:
        return self


def attach(model: Any, **settings: Any) -> Any:
    """Apply Cache-DiT as the node does."""
    from dit_acceleration_pack.acceleration import host
    from dit_acceleration_pack.acceleration.policies.cache_dit import CacheDiT
    from dit_acceleration_pack.acceleration.settings.caching import CacheDiTSettings

    return host.attach(model, CacheDiT(CacheDiTSettings(**settings)))


def report_of(model: Any) -> Any:
    """The report of the model's last run."""
    from dit_acceleration_pack.acceleration import host

    return host.last_report(model)


def context_windows(schedule: str, length: int, overlap: int, stride: int = 1) -> Any:
    """The host's handler of sliding windows over the frames of a video, for ``model_options``."""
    import comfy.context_windows as windows

    return windows.IndexListContextHandler(
        context_schedule=windows.get_matching_context_schedule(schedule),
        fuse_method=windows.get_matching_fuse_method("pyramid"),
        context_length=length,
        context_overlap=overlap,
        context_stride=stride,
        closed_loop=False,
        dim=2,
    )


def control_for(name: str) -> TinyControl:
    """A ControlNet that adds seeded noise after every block where this family takes it."""
    generator = torch.Generator().manual_seed(7)
    return TinyControl(
        {
            where: [torch.randn(1, tokens, width, generator=generator) * 3 for _ in range(count)]
            for where, (count, tokens, width) in TINY[name].control.items()
        }
    )


def add_control(conditioned: list[Any], control: TinyControl) -> list[Any]:
    """The conditioning with a ControlNet applied."""
    return [[c, {**options, "control": control}] for c, options in conditioned]


def psnr(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB, peak = range of the reference."""
    error = (reference - other).float().square().mean().item()
    peak = (reference.max() - reference.min()).item()
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)

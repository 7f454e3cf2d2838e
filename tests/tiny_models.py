"""Tiny models of the host's real classes with random weights, and everything to sample them.

They show mechanics (what is called, what is added, what is left behind), not picture quality.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch

FLUX_CONFIG: dict[str, Any] = {
    "in_channels": 16,
    "out_channels": 16,
    "vec_in_dim": 16,
    "context_in_dim": 24,
    "hidden_size": 32,
    "mlp_ratio": 2.0,
    "num_heads": 2,
    "depth": 2,
    "depth_single_blocks": 3,
    "axes_dim": [4, 6, 6],
    "theta": 10000,
    "patch_size": 2,
    "qkv_bias": True,
    "txt_ids_dims": [],
}


@dataclass(frozen=True)
class TinyModel:
    """How to build one family small.

    Parameters
    ----------
    config
        Name of the host's class in ``comfy.supported_models``.
    unet_config
        Constructor arguments of the network.
    latent
        Shape of a latent without the batch, ``[C, …]``.
    context
        Width of the text conditioning; ``text_tokens`` is its length.
    pooled
        Width of the pooled conditioning, 0 for none.
    """

    config: str
    unet_config: dict[str, Any]
    latent: tuple[int, ...]
    context: int = 24
    text_tokens: int = 5
    pooled: int = 0
    extra: dict[str, Any] = field(default_factory=dict)


TINY: dict[str, TinyModel] = {
    "flux": TinyModel(
        "Flux",
        {"image_model": "flux", "guidance_embed": True, **FLUX_CONFIG},
        (16, 8, 8),
        pooled=16,
    ),
    "flux2": TinyModel(
        "Flux2",
        {
            **FLUX_CONFIG,
            "image_model": "flux2",
            "guidance_embed": True,
            "vec_in_dim": None,
            "in_channels": 128,
            "out_channels": 128,
            "axes_dim": [4, 4, 4, 4],
            "patch_size": 1,
            "qkv_bias": False,
            "ops_bias": False,
            "global_modulation": True,
            "mlp_silu_act": True,
            "txt_ids_dims": [3],
            "default_ref_method": "index",
            "ref_index_scale": 10.0,
        },
        (128, 4, 4),
    ),
    "chroma": TinyModel(
        "Chroma",
        {
            "image_model": "chroma",
            **FLUX_CONFIG,
            "in_channels": 64,
            "out_channels": 64,
            "vec_in_dim": None,
            "in_dim": 64,
            "out_dim": 32,
            "hidden_dim": 32,
            "n_layers": 2,
        },
        (16, 8, 8),
    ),
    "wan": TinyModel(
        "WAN21_T2V",
        {
            "image_model": "wan2.1",
            "model_type": "t2v",
            "dim": 32,
            "out_dim": 16,
            "in_dim": 16,
            "num_heads": 2,
            "ffn_dim": 48,
            "num_layers": 5,
            "patch_size": (1, 2, 2),
            "freq_dim": 16,
            "text_dim": 24,
            "window_size": (-1, -1),
            "qk_norm": True,
            "cross_attn_norm": True,
            "eps": 1e-6,
        },
        (16, 3, 8, 8),
    ),
}


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


def make_model(name: str, dtype: torch.dtype = torch.float32, seed: int = 0) -> Any:
    """A MODEL (ModelPatcher on the CPU) of one family."""
    import comfy.model_patcher
    import comfy.supported_models

    tiny = TINY[name]
    config = getattr(comfy.supported_models, tiny.config)(tiny.unet_config)
    arguments: dict[str, Any] = {}
    if "device" in inspect.signature(config.set_inference_dtype).parameters:
        arguments["device"] = torch.device("cpu")
    config.set_inference_dtype(dtype, None, **arguments)
    model = config.get_model({}, "", device=torch.device("cpu"))
    randomize(model.diffusion_model, seed)
    cpu = torch.device("cpu")
    return comfy.model_patcher.ModelPatcher(model, load_device=cpu, offload_device=cpu)


def conditioning(name: str, seed: int) -> list[Any]:
    """A CONDITIONING of one prompt made of seeded noise."""
    tiny = TINY[name]
    generator = torch.Generator().manual_seed(seed)
    options: dict[str, Any] = dict(tiny.extra)
    if tiny.pooled:
        options["pooled_output"] = torch.randn(1, tiny.pooled, generator=generator)
    return [[torch.randn(1, tiny.text_tokens, tiny.context, generator=generator), options]]


def sample(
    model: Any,
    name: str,
    steps: int = 10,
    cfg: float = 1.0,
    sampler: str = "euler",
    seed: int = 0,
    batch: int = 1,
    latent: tuple[int, ...] | None = None,
    positive: list[Any] | None = None,
    negative: list[Any] | None = None,
    **options: Any,
) -> torch.Tensor:
    """Sample as KSampler does; the latent ``[B, C, …]`` comes back."""
    import comfy.sample

    with torch.inference_mode():
        empty = torch.zeros(batch, *(latent or TINY[name].latent))
        noise = comfy.sample.prepare_noise(empty, seed)
        return comfy.sample.sample(
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

    def get_control(self, *_: Any) -> dict[str, list[torch.Tensor | None]]:
        return {k: list(v) for k, v in self.adds.items()}

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
    from dit_acceleration_pack.acceleration.settings import CacheDiTSettings

    return host.attach(model, CacheDiT(CacheDiTSettings(**settings)))


def report_of(model: Any) -> Any:
    """The report of the model's last run."""
    from dit_acceleration_pack.acceleration import host

    return host.last_report(model)


def add_control(conditioned: list[Any], control: TinyControl) -> list[Any]:
    """The conditioning with a ControlNet applied."""
    return [[c, {**options, "control": control}] for c, options in conditioned]


def psnr(reference: torch.Tensor, other: torch.Tensor) -> float:
    """Peak signal-to-noise ratio in dB, peak = range of the reference."""
    error = (reference - other).float().square().mean().item()
    peak = (reference.max() - reference.min()).item()
    return math.inf if error == 0 else 10 * math.log10(peak**2 / error)

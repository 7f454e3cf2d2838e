"""The real architectures in their real size, with random weights that no file holds.

The host's own classes, built on the device and filled there. Speed and memory are those of the real
models; pictures are noise.
"""

from __future__ import annotations

import gc
import math
from dataclasses import dataclass, field
from typing import Any

import harness

WATCH = "benchmark_watch"
WEIGHT_SCALE = 0.8
"""Of ``1 / sqrt(inputs)``: signals neither vanish nor explode in sixty blocks."""


@dataclass(frozen=True)
class FullModel:
    """How to build one model and what it is sampled with.

    Parameters
    ----------
    config
        Name of the host's class in ``comfy.supported_models``.
    network
        Constructor arguments of the network.
    latent
        ``[C, …]`` of one picture or video.
    context, text_tokens, pooled
        Width and length of the text conditioning, width of the pooled one (0 for none).
    tokens, blocks, width
        Tokens that a block sees, blocks, and hidden size, for estimates of time.
    tiny, tiny_latent
        What is other in a model for a test without a GPU.
    leave_out
        Rows that would measure nothing new.
    """

    config: str
    network: dict[str, Any]
    latent: tuple[int, ...]
    cfg: float
    steps: int
    context: int
    text_tokens: int
    tokens: int
    blocks: int
    width: int
    tiny: dict[str, Any]
    tiny_latent: tuple[int, ...]
    pooled: int = 0
    options: dict[str, Any] = field(default_factory=dict)
    leave_out: tuple[str, ...] = ()

    @property
    def flop(self) -> float:
        """About how many operations one evaluation takes: 12 D² weights a token and block."""
        one = self.tokens * (24.0 * self.width**2 + 4.0 * self.tokens * self.width) * self.blocks
        return one * (1 if self.cfg == 1 else 2)


TINY_TEXT = {"context": 64, "text_tokens": 16, "pooled": 32}

MODELS = {
    # 1024 x 1024: 64 x 64 patches and 512 tokens of T5.
    "FLUX.1-dev": FullModel(
        "Flux",
        {
            "image_model": "flux",
            "guidance_embed": True,
            "in_channels": 16,
            "out_channels": 16,
            "vec_in_dim": 768,
            "context_in_dim": 4096,
            "hidden_size": 3072,
            "mlp_ratio": 4.0,
            "num_heads": 24,
            "depth": 19,
            "depth_single_blocks": 38,
            "axes_dim": [16, 56, 56],
            "theta": 10000,
            "patch_size": 2,
            "qkv_bias": True,
            "txt_ids_dims": [],
        },
        latent=(16, 128, 128),
        cfg=1.0,
        steps=28,
        context=4096,
        text_tokens=512,
        pooled=768,
        tokens=64 * 64 + 512,
        blocks=57,
        width=3072,
        options={"guidance": 3.5},
        tiny={
            "vec_in_dim": TINY_TEXT["pooled"],
            "context_in_dim": TINY_TEXT["context"],
            "hidden_size": 256,
            "num_heads": 2,
            "depth": 2,
            "depth_single_blocks": 3,
        },
        tiny_latent=(16, 16, 16),
    ),
    # 1328 x 1328: 83 x 83 patches and a prompt of 128 tokens.
    "Qwen-Image": FullModel(
        "QwenImage",
        {
            "image_model": "qwen_image",
            "in_channels": 64,
            "out_channels": 16,
            "num_layers": 60,
            "attention_head_dim": 128,
            "num_attention_heads": 24,
            "joint_attention_dim": 3584,
            "axes_dims_rope": (16, 56, 56),
        },
        latent=(16, 1, 166, 166),
        cfg=4.0,
        steps=20,
        context=3584,
        text_tokens=128,
        tokens=83 * 83 + 128,
        blocks=60,
        width=3072,
        tiny={
            "num_layers": 4,
            "num_attention_heads": 2,
            "joint_attention_dim": TINY_TEXT["context"],
        },
        tiny_latent=(16, 1, 16, 16),
        # Nobody has published coefficients.
        leave_out=("TeaCache",),
    ),
    # 832 x 480, 33 frames: 9 latent frames of 52 x 30 patches.
    "Wan 2.1 14B": FullModel(
        "WAN21_T2V",
        {
            "image_model": "wan2.1",
            "model_type": "t2v",
            "dim": 5120,
            "in_dim": 16,
            "out_dim": 16,
            "num_heads": 40,
            "ffn_dim": 13824,
            "num_layers": 40,
            "patch_size": (1, 2, 2),
            "freq_dim": 256,
            "text_dim": 4096,
            "window_size": (-1, -1),
            "qk_norm": True,
            "cross_attn_norm": True,
            "eps": 1e-6,
        },
        latent=(16, 9, 60, 104),
        cfg=5.0,
        steps=10,
        context=4096,
        text_tokens=512,
        tokens=9 * 52 * 30,
        blocks=40,
        width=5120,
        tiny={
            "dim": 256,
            "num_heads": 2,
            "ffn_dim": 512,
            "num_layers": 4,
            "text_dim": TINY_TEXT["context"],
        },
        tiny_latent=(16, 3, 16, 16),
        # A preset computes at least 5 steps, which of 10 is what "balanced" plans; waits are
        # counted on the others.
        leave_out=("fast", "ultra", "synchronisations"),
    ),
}


@dataclass
class Sample:
    """One sampling run.

    ``peak_bytes`` is the device memory that tensors took at most, None on the CPU. ``spans`` time
    each call of the host's model from outside every wrapper of ours; on CUDA they are events, so
    read them only when nothing else is measured.
    """

    latent: Any
    seconds: float
    spans: list[Any]
    peak_bytes: int | None = None

    def evaluation_seconds(self) -> list[float]:
        """Seconds of each evaluation, in order."""
        return [span.seconds() for span in self.spans]


class Full:
    """A model on its device, ready to be sampled."""

    def __init__(self, name: str, tiny: bool, dynamic: bool = False) -> None:
        import comfy.model_management as management
        import torch

        self.name, self.full, self.is_tiny = name, MODELS[name], tiny
        self.device = management.get_torch_device()
        self.dtype = torch.float32 if self.device.type == "cpu" else torch.bfloat16
        self.latent = self.full.tiny_latent if tiny else self.full.latent
        self._spans: list[Any] = []
        # The dynamic memory manager pages weights in from the CPU and wants them there.
        home = torch.device("cpu") if dynamic else self.device
        self.model: Any = self._patcher(home)

    def _patcher(self, home: Any) -> Any:
        """A MODEL of the class that the host's loader takes, its weights on ``home``."""
        import comfy.model_management as management
        import comfy.model_patcher
        import comfy.supported_models
        from comfy.patcher_extension import WrappersMP

        arguments = self.full.network | (self.full.tiny if self.is_tiny else {})
        config = getattr(comfy.supported_models, self.full.config)(arguments)
        config.set_inference_dtype(self.dtype, None, device=self.device)
        base = config.get_model({}, "", device=home)
        fill(base.diffusion_model, self.device)
        patcher = comfy.model_patcher.CoreModelPatcher(
            base, load_device=self.device, offload_device=management.unet_offload_device()
        )
        # Wrappers that are added first are outermost.
        patcher.add_wrapper_with_key(WrappersMP.APPLY_MODEL, WATCH, self._watch)
        return patcher

    def _watch(self, executor: Any, *args: Any, **kwargs: Any) -> Any:
        from dit_acceleration_pack.acceleration.timing import Span

        span = Span(args[0].device)
        output = executor(*args, **kwargs)
        self._spans.append(span.stop())
        return output

    @property
    def weight_bytes(self) -> int:
        """Bytes of the weights."""
        return sum(p.numel() * p.element_size() for p in self.model.model.parameters())

    def conditioning(self, seed: int) -> list[Any]:
        """A CONDITIONING of random numbers in the shape of the real one."""
        import torch

        full = self.full
        sizes = {"context": full.context, "text_tokens": full.text_tokens, "pooled": full.pooled}
        if self.is_tiny:
            sizes |= {key: size for key, size in TINY_TEXT.items() if sizes[key]}
        generator = torch.Generator().manual_seed(seed)
        text = torch.randn(1, sizes["text_tokens"], sizes["context"], generator=generator)
        options = dict(full.options)
        if sizes["pooled"]:
            options["pooled_output"] = torch.randn(1, sizes["pooled"], generator=generator)
        return [[text, options]]

    def sample(self, model: Any, steps: int) -> Sample:
        """Sample with euler and the scheduler "simple", as KSampler does."""
        import time

        import comfy.sample
        import comfy.samplers
        import torch

        sampling = model.get_model_object("model_sampling")
        sigmas = comfy.samplers.calculate_sigmas(sampling, "simple", steps)
        empty = torch.zeros(1, *self.latent)
        noise = comfy.sample.prepare_noise(empty, 1)
        prompts = self.conditioning(1), self.conditioning(2)
        solver = comfy.samplers.sampler_object("euler")
        self._spans = []
        on_gpu = self.device.type == "cuda"
        with torch.inference_mode():
            harness.synchronize()
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            began = time.perf_counter()
            latent = comfy.sample.sample_custom(
                *(model, noise, self.full.cfg, solver, sigmas, *prompts, empty),
                disable_pbar=True,
                seed=1,
            )
            harness.synchronize()
            seconds = time.perf_counter() - began
            peak = torch.cuda.max_memory_allocated() if on_gpu else None
            return Sample(latent.float().cpu(), seconds, self._spans, peak)

    def free(self) -> None:
        """Give the memory back, whatever still refers to the model."""
        import comfy.model_management as management
        import torch

        for loaded in [m for m in management.current_loaded_models if m.device == self.device]:
            management.current_loaded_models.remove(loaded)
        for parameter in self.model.model.parameters():
            parameter.data = torch.empty(0, dtype=parameter.dtype)
        self.model = None
        gc.collect()
        if self.device.type == "cuda":
            torch.cuda.empty_cache()


def fill(network: Any, device: Any) -> None:
    """Seeded normal weights, made on ``device`` also where they live elsewhere."""
    import torch

    generator = torch.Generator(device=device).manual_seed(0)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            made = (
                torch.empty_like(parameter, device=device) if device != parameter.device else None
            )
            target = parameter if made is None else made
            if parameter.ndim >= 2:
                scale = WEIGHT_SCALE / math.sqrt(parameter[0].numel())
                target.normal_(0.0, scale, generator=generator)
            else:
                mean = 0.0 if name.endswith("bias") else 1.0
                target.normal_(mean, 0.05, generator=generator)
            if made is not None:
                parameter.copy_(made)


def enable_dynamic() -> None:
    """Turn on the host's dynamic memory manager, as its ``main.py`` does on NVIDIA by default.

    Raises
    ------
    RuntimeError
        Where it does not work.
    """
    import comfy.memory_management
    import comfy.model_management as management
    import comfy.model_patcher
    import comfy_aimdo.control as control

    control.init()
    if not control.init_devices(device.index for device in management.get_all_torch_devices()):
        raise RuntimeError("comfy-aimdo does not work here: leave out --dynamic")
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    comfy.memory_management.aimdo_enabled = True

"""Workflows as people saved them with nodes of other packs that no longer work.

Each runs the demo model through one such node, or through those that belonged together, with
values that differ from our defaults wherever one is carried over. The nodes' inputs are described
as the packs' last versions declare them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from example_builder import Graph, Node

Info = dict[str, Any]

WIDTH = HEIGHT = 256
STEPS = 12
UNIT = {"min": 0.0, "max": 1.0, "step": 0.01}
DEVICES = [["main_device", "offload_device"], {"default": "offload_device"}]


def described(**inputs: list[Any]) -> Info:
    """A node from MODEL to MODEL, as a server that has it would describe it."""
    return {
        "input": {"required": {"model": ["MODEL"], **inputs}},
        "input_order": {"required": ["model", *inputs]},
        "output": ["MODEL"],
        "output_name": ["MODEL"],
    }


def number(default: float, most: float = 1.0) -> list[Any]:
    return ["FLOAT", {"default": default, "min": 0.0, "max": most, "step": 0.001}]


def whole(default: int, least: int, most: int) -> list[Any]:
    return ["INT", {"default": default, "min": least, "max": most}]


NODES: dict[str, Info] = {
    "TeaCache": described(
        model_type=[["flux", "flux-kontext", "hunyuan_video", "wan2.1_t2v_14B"]],
        rel_l1_thresh=number(0.4, 10.0),
        start_percent=number(0.0),
        end_percent=number(1.0),
        cache_device=[["cuda", "cpu"]],
    ),
    "ApplyFBCacheOnModel": described(
        object_to_patch=["STRING", {"default": "diffusion_model"}],
        residual_diff_threshold=number(0.0),
        start=number(0.0),
        end=number(1.0),
        max_consecutive_cache_hits=whole(-1, -1, 1000),
    ),
    "MagCache": described(
        model_type=[["flux", "chroma", "qwen_image", "wan2.1_t2v_1.3B"]],
        magcache_thresh=number(0.06, 0.3),
        retention_ratio=number(0.2, 0.3),
        magcache_K=whole(2, 0, 6),
        start_step=whole(0, 0, 100),
        end_step=whole(-1, -100, 100),
    ),
    "WanVideoTeaCacheKJ": described(
        rel_l1_thresh=number(0.275, 10.0),
        start_percent=number(0.1),
        end_percent=number(1.0),
        cache_device=DEVICES,
        coefficients=[["disabled", "1.3B", "14B", "i2v_480", "i2v_720"]],
    ),
    "PathchSageAttentionKJ": described(
        sage_attention=[["disabled", "auto", "sageattn_qk_int8_pv_fp16_cuda"]],
        allow_compile=["BOOLEAN", {"default": False}],
    ),
    "CacheDiT_Model_Optimizer": described(
        enable=["BOOLEAN", {"default": True}],
        model_type=[["Auto", "Flux", "Qwen-Image"]],
        warmup_steps=whole(0, 0, 100),
        skip_interval=whole(0, 0, 10),
        print_summary=["BOOLEAN", {"default": True}],
    ),
    "ApplyTeaCachePatch": described(
        rel_l1_thresh=number(0.25, 5.0),
        cache_device=DEVICES,
        wan_coefficients=[["disabled", "t2v_1.3B", "t2v_14B"]],
    ),
    "ApplyFirstBlockCachePatch": described(residual_diff_threshold=number(0.0)),
    "FluxForwardOverrider": described(),
}

# Old node -> the values in the saved workflow; the others are at their defaults.
SAVED: dict[str, dict[str, Any]] = {
    "TeaCache": {"rel_l1_thresh": 0.3, "start_percent": 0.1, "end_percent": 0.95},
    "ApplyFBCacheOnModel": {
        "residual_diff_threshold": 0.18,
        "start": 0.05,
        "end": 0.9,
        "max_consecutive_cache_hits": 2,
    },
    "MagCache": {"magcache_thresh": 0.24, "retention_ratio": 0.15, "magcache_K": 5},
    "WanVideoTeaCacheKJ": {"rel_l1_thresh": 0.35, "coefficients": "i2v_480"},
    "PathchSageAttentionKJ": {"sage_attention": "auto"},
    "CacheDiT_Model_Optimizer": {"model_type": "Flux", "warmup_steps": 5, "skip_interval": 3},
    "ApplyTeaCachePatch": {"rel_l1_thresh": 0.4},
    "ApplyFirstBlockCachePatch": {"residual_diff_threshold": 0.12},
}
# What a user finds in our node: input of ours to the value that the old workflow had for it.
EXPECTED: dict[str, tuple[str, dict[str, Any]]] = {
    "TeaCache": (
        "AccelApplyTeaCache",
        {"rel_l1_thresh": 0.3, "coefficients": "flux", "start_percent": 0.1, "end_percent": 0.95},
    ),
    "ApplyFBCacheOnModel": (
        "AccelApplyCacheDiT",
        {
            "residual_diff_threshold": 0.18,
            "start_percent": 0.05,
            "end_percent": 0.9,
            "max_continuous_cached_steps": 2,
        },
    ),
    "MagCache": (
        "AccelApplyCacheDiT",
        {"start_percent": 0.15, "max_continuous_cached_steps": 5},
    ),
    "WanVideoTeaCacheKJ": (
        "AccelApplyTeaCache",
        {"rel_l1_thresh": 0.35, "start_percent": 0.1, "end_percent": 1.0},
    ),
    "PathchSageAttentionKJ": (
        "AccelAttentionBackend",
        {"backend": "auto", "allow_low_precision": True},
    ),
    "CacheDiT_Model_Optimizer": ("AccelApplyCacheDiT", {}),
    "ApplyTeaCachePatch": ("AccelApplyTeaCache", {"rel_l1_thresh": 0.4}),
    "ApplyFirstBlockCachePatch": ("AccelApplyCacheDiT", {"residual_diff_threshold": 0.12}),
}

# Its two nodes did nothing without the one that prepared the model for them.
BEHIND_OVERRIDER = ("ApplyTeaCachePatch", "ApplyFirstBlockCachePatch")


def build(info: Mapping[str, Any], old: str) -> dict[str, Any]:
    """The workflow with one old node; `info` is the server's list of nodes."""
    graph = Graph({**info, **NODES}, f"old_{old}")
    with graph.group("Model"):
        model: Node = graph.node("UNETLoader", unet_name="dit_accel_demo_flux.safetensors")
        if old in BEHIND_OVERRIDER:
            model = graph.node("FluxForwardOverrider", model=model)
        model = graph.node(old, "Makes it faster", model=model, **SAVED[old])
    with graph.group("Prompt"):
        positive = graph.node("DiTAccelDemoTextEncode", prompt="red circle")
        negative = graph.node("DiTAccelDemoTextEncode", prompt="(unconditional)")
        latent = graph.node("EmptySD3LatentImage", width=WIDTH, height=HEIGHT, batch_size=1)
    with graph.group("Sampling"):
        sampler = graph.node(
            "KSampler",
            model=model,
            positive=positive,
            negative=negative,
            latent_image=latent,
            steps=STEPS,
            cfg=1.0,
            sampler_name="euler",
            scheduler="simple",
        )
        picture = graph.node("DiTAccelDemoDecode", samples=sampler)
    with graph.group("Result"):
        graph.node("SaveImage", images=picture, filename_prefix="old_workflow")
    return graph.build()

"""Qwen-Image and Qwen-Image-Edit: two streams all the way, returned text first."""

from .base import (
    IMAGE,
    JOINED,
    TEXT,
    Arg,
    BlockStack,
    CacheDiTPreset,
    ExactLayers,
    Family,
    Tap,
)
from .tokens import Along, Count, TokenPlan

QWEN_STACKS = (
    BlockStack(
        "transformer_blocks",
        {IMAGE: Arg("hidden_states", 0), TEXT: Arg("encoder_hidden_states", 1)},
        (TEXT, IMAGE),
    ),
)

QWEN_TAP = Tap("attn", keyword="hidden_states")

FAMILY = Family(
    name="Qwen-Image",
    classes=("comfy.ldm.qwen_image.model.QwenImageTransformer2DModel",),
    stacks=QWEN_STACKS,
    models="Qwen-Image, Qwen-Image-Edit, Qwen-Image-Layered",
    tap=QWEN_TAP,
    exact=(ExactLayers(("img_mlp",), ("fp8",), "vLLM-Omni, guide to FP8 quantization"),),
    cache_dit=(
        CacheDiTPreset(
            "Qwen-Image, 50 steps",
            {
                "max_warmup_steps": 8,
                "warmup_interval": 2,
                "residual_diff_threshold": 0.12,
                "max_continuous_cached_steps": 2,
                "calibrator": "taylorseer",
            },
            "SGLang-Diffusion, documentation of Cache-DiT",
        ),
        CacheDiTPreset(
            "Qwen-Image and Edit with Lightning, 8 steps",
            {
                "Fn_compute_blocks": 16,
                "Bn_compute_blocks": 16,
                "max_cached_steps": 2,
                "max_continuous_cached_steps": 1,
                "residual_diff_threshold": 0.5,
            },
            "cache-dit, example qwen_image_lightning",
        ),
        CacheDiTPreset(
            "Qwen-Image and Edit with Lightning, 4 steps",
            {
                "Fn_compute_blocks": 16,
                "Bn_compute_blocks": 16,
                "max_warmup_steps": 2,
                "max_cached_steps": 1,
                "max_continuous_cached_steps": 1,
                "residual_diff_threshold": 0.8,
            },
            "cache-dit, example qwen_image_lightning",
        ),
    ),
    split={
        "transformer_blocks": TokenPlan(
            (
                Along(Arg("encoder_hidden_states_mask", 2), -1, TEXT),
                Along(Arg("image_rotary_emb", 4), 2, JOINED),
                Count(Arg("timestep_zero_index", 5), IMAGE),
            ),
            control="input",
        )
    },
)

"""What the two check models are: the host's classes, small enough for a processor."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from scenes import PICTURE, TEXT_WIDTH, VIDEO, Canvas

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Network:
    """One check model.

    Parameters
    ----------
    config
        Name of the host's class in ``comfy.supported_models``.
    arguments
        Its network's sizes. The host's loader takes those of Qwen-Image as given, so that the class
        is built directly.
    canvas
        Where it draws.
    pooled
        Length of the pooled vector of a prompt, all zeros; 0 where there is none.
    """

    config: str
    arguments: dict[str, Any]
    canvas: Canvas
    pooled: int
    file: Path


NETWORKS = {
    "Qwen-Image": Network(
        "QwenImage",
        {
            "image_model": "qwen_image",
            "in_channels": 64,
            "num_layers": 5,
            "attention_head_dim": 128,
            "num_attention_heads": 1,
            "joint_attention_dim": TEXT_WIDTH,
        },
        PICTURE,
        0,
        HERE / "check_qwen_image.safetensors",
    ),
    "HunyuanVideo": Network(
        "HunyuanVideo",
        {
            "image_model": "hunyuan_video",
            "in_channels": 16,
            "out_channels": 16,
            "patch_size": [1, 2, 2],
            "vec_in_dim": 768,
            "context_in_dim": TEXT_WIDTH,
            "hidden_size": 128,
            "mlp_ratio": 4.0,
            "num_heads": 1,
            "depth": 2,
            "depth_single_blocks": 4,
            "axes_dim": [16, 56, 56],
            "theta": 256,
            "qkv_bias": True,
            "guidance_embed": False,
            "byt5": False,
            "meanflow": False,
            "use_cond_type_embedding": False,
            "vision_in_dim": None,
            "meanflow_sum": False,
        },
        VIDEO,
        768,
        HERE / "check_hunyuan_video.safetensors",
    ),
}

"""Tiny models of the Wan family."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from tiny_data import Bundle, Noise, TinyModel

VIDEO = (16, 3, 8, 8)

WAN_CONFIG: dict[str, Any] = {
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
}

CLIP_VISION = Bundle({"penultimate_hidden_states": Noise((1, 4, 1280))})


def wan(
    config: str,
    model_type: str,
    latent: tuple[int, ...] = VIDEO,
    extra: dict[str, Any] | None = None,
    prepare: Callable[[Any], None] | None = None,
    **changes: Any,
) -> TinyModel:
    """A Wan with changes to its constructor's arguments."""
    unet_config = {**WAN_CONFIG, "model_type": model_type, **changes}
    return TinyModel(config, unet_config, latent, extra=extra or {}, prepare=prepare)


def small_faces(network: Any) -> None:
    """Animate's motion encoder only takes 512 x 512 pictures and costs more than all blocks."""
    network.motion_encoder = torch.nn.Module()
    network.motion_encoder.get_motion = lambda faces: faces.flatten(1)[:, :512]


WAN: dict[str, TinyModel] = {
    "wan": wan("WAN21_T2V", "t2v"),
    "wan_in_context": wan(
        "WAN21_T2V", "t2v", extra={"context_latents": [Noise((1, 16, 1, 8, 8))] * 2}
    ),
    "wan_i2v": wan(
        "WAN21_I2V",
        "i2v",
        in_dim=36,
        extra={
            "clip_vision_output": CLIP_VISION,
            "concat_latent_image": Noise((1, 16, 3, 8, 8)),
        },
    ),
    "wan_flf2v": wan(
        "WAN21_I2V",
        "i2v",
        in_dim=36,
        flf_pos_embed_token_number=8,
        extra={
            "clip_vision_output": Bundle({"penultimate_hidden_states": Noise((1, 8, 1280))}),
            "concat_latent_image": Noise((1, 16, 3, 8, 8)),
        },
    ),
    "wan_fun_control": wan(
        "WAN21_FunControl2V",
        "i2v",
        in_dim=48,
        in_dim_ref_conv=16,
        extra={
            "clip_vision_output": CLIP_VISION,
            "concat_latent_image": Noise((1, 32, 3, 8, 8)),
            "reference_latents": [Noise((1, 16, 1, 8, 8))],
        },
    ),
    "wan_vace": wan(
        "WAN21_Vace",
        "vace",
        num_layers=6,
        vace_layers=3,
        vace_in_dim=96,
        extra={
            "vace_frames": [Noise((1, 32, 3, 8, 8))],
            "vace_mask": [Noise((1, 64, 3, 8, 8))],
            "vace_strength": [0.8],
        },
    ),
    "wan_camera": wan(
        "WAN21_Camera",
        "camera",
        in_dim=32,
        extra={
            "clip_vision_output": CLIP_VISION,
            "camera_conditions": Noise((1, 24, 3, 64, 64)),
        },
    ),
    "wan22_camera": wan(
        "WAN22_Camera",
        "camera_2.2",
        in_dim=36,
        extra={"camera_conditions": Noise((1, 24, 3, 64, 64))},
    ),
    "wan_humo": wan(
        "WAN21_HuMo",
        "humo",
        extra={
            "audio_embed": Noise((1, 3, 8, 5, 1280)),
            "reference_latents": [Noise((1, 16, 1, 8, 8))],
        },
    ),
    "wan_scail": wan(
        "WAN21_SCAIL",
        "scail",
        in_dim=20,
        extra={
            "clip_vision_output": CLIP_VISION,
            "reference_latents": [Noise((1, 16, 1, 8, 8))],
            "pose_video_latent": Noise((1, 16, 3, 4, 4)),
        },
    ),
    "wan_scail2": wan(
        "WAN21_SCAIL2",
        "scail2",
        in_dim=20,
        extra={
            "clip_vision_output": CLIP_VISION,
            "reference_latents": [Noise((1, 16, 1, 8, 8))],
            "pose_video_latent": Noise((1, 16, 3, 4, 4)),
            "driving_mask_28ch": Noise((1, 3, 28, 4, 4)),
            "ref_mask_28ch": Noise((1, 4, 28, 8, 8)),
        },
    ),
    "wan22_5b": wan("WAN22_T2V", "t2v", (48, 3, 4, 4), in_dim=48, out_dim=48),
    "wan22_s2v": wan(
        "WAN22_S2V",
        "s2v",
        audio_dim=16,
        audio_inject_layers=[0, 2, 3],
        extra={
            "audio_embed": Noise((1, 25, 16, 12)),
            "reference_latents": [Noise((1, 16, 1, 8, 8))],
            "control_video": Noise((1, 16, 3, 8, 8)),
            "reference_motion": Noise((1, 16, 19, 8, 8)),
        },
    ),
    "wan22_animate": wan(
        "WAN22_Animate",
        "animate",
        num_layers=10,
        in_dim=36,
        prepare=small_faces,
        extra={
            "clip_vision_output": CLIP_VISION,
            "face_video_pixels": Noise((1, 3, 8, 16, 16)),
            "pose_video_latent": Noise((1, 16, 2, 8, 8)),
        },
    ),
    "wan22_dancer": wan(
        "WAN22_WanDancer",
        "wandancer",
        in_dim=36,
        audio_inject_layers=[0, 2, 3],
        music_dim=32,
        music_heads=2,
        music_latent_dim=32,
        extra={
            "clip_vision_output": CLIP_VISION,
            "clip_vision_output_ref": CLIP_VISION,
            "audio_embed": Noise((1, 9, 35)),
        },
    ),
    "wan_flow_rvs": wan("WAN21_FlowRVS", "flow_rvs"),
    "wan_causal": wan("WAN21_CausalAR_T2V", "t2v", causal_ar=True),
}

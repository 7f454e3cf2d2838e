"""Tiny models with FLUX's two stacks: FLUX, Chroma, the Hunyuan video and 3D families."""

from __future__ import annotations

from typing import Any

from tiny_data import Bundle, Noise, TinyModel

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

FLUX2_CONFIG = {
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
}

CHROMA_CONFIG = {
    "image_model": "chroma",
    **FLUX_CONFIG,
    "in_channels": 64,
    "out_channels": 64,
    "vec_in_dim": None,
    "in_dim": 64,
    "out_dim": 32,
    "hidden_dim": 32,
    "n_layers": 2,
}

HUNYUAN_CONFIG: dict[str, Any] = {
    "image_model": "hunyuan_video",
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
    "theta": 256,
    "patch_size": [1, 2, 2],
    "qkv_bias": True,
    "guidance_embed": True,
    "byt5": False,
    "meanflow": False,
    "use_cond_type_embedding": False,
    "vision_in_dim": None,
    "meanflow_sum": False,
}

HUNYUAN15_CONFIG = {
    **HUNYUAN_CONFIG,
    "in_channels": 65,
    "out_channels": 32,
    "vec_in_dim": None,
    "guidance_embed": False,
    "byt5": True,
    "use_cond_type_embedding": True,
    "vision_in_dim": 20,
    "meanflow_sum": True,
}

HUNYUAN15_EXTRA = {
    "conditioning_byt5small": Noise((1, 3, 1472)),
    "clip_vision_output": Bundle({"last_hidden_state": Noise((1, 4, 20))}),
}

IMAGE_CONTROL = {"input": (2, 16, 32), "output": (3, 16, 32)}

FLUX: dict[str, TinyModel] = {
    "flux": TinyModel(
        "Flux",
        {"image_model": "flux", "guidance_embed": True, **FLUX_CONFIG},
        (16, 8, 8),
        pooled=16,
        control=IMAGE_CONTROL,
    ),
    "flux_schnell": TinyModel(
        "FluxSchnell",
        {"image_model": "flux", "guidance_embed": False, **FLUX_CONFIG},
        (16, 8, 8),
        pooled=16,
    ),
    "flux_fill": TinyModel(
        "FluxInpaint",
        {"image_model": "flux", "guidance_embed": True, **FLUX_CONFIG, "in_channels": 96},
        (16, 8, 8),
        pooled=16,
        extra={"concat_latent_image": Noise((1, 16, 8, 8))},
    ),
    "flux_kontext": TinyModel(
        "Flux",
        {"image_model": "flux", "guidance_embed": True, **FLUX_CONFIG},
        (16, 8, 8),
        pooled=16,
        extra={"reference_latents": [Noise((1, 16, 8, 12)), Noise((1, 16, 4, 4))]},
        control=IMAGE_CONTROL,
    ),
    # Older hosts want a pooled conditioning of every FLUX-like model.
    "flux2": TinyModel("Flux2", FLUX2_CONFIG, (128, 4, 4), pooled=16),
    "flux2_reference": TinyModel(
        "Flux2",
        FLUX2_CONFIG,
        (128, 4, 4),
        pooled=16,
        extra={"reference_latents": [Noise((1, 128, 4, 6))]},
    ),
    "longcat": TinyModel(
        "LongCatImage",
        {
            "image_model": "flux",
            "guidance_embed": False,
            **FLUX_CONFIG,
            "vec_in_dim": None,
            "txt_ids_dims": [1, 2],
        },
        (16, 8, 8),
    ),
    "ovis": TinyModel(
        "FluxSchnell",
        {
            "image_model": "flux",
            "guidance_embed": False,
            **FLUX_CONFIG,
            "vec_in_dim": None,
            "yak_mlp": True,
            "txt_norm": True,
            "txt_ids_dims": [1, 2],
        },
        (16, 8, 8),
    ),
    "chroma": TinyModel("Chroma", CHROMA_CONFIG, (16, 8, 8), pooled=16, control=IMAGE_CONTROL),
    "chroma_radiance": TinyModel(
        "ChromaRadiance",
        {
            **CHROMA_CONFIG,
            "image_model": "chroma_radiance",
            "in_channels": 3,
            "out_channels": 3,
            "patch_size": 4,
            "nerf_hidden_size": 8,
            "nerf_mlp_ratio": 2,
            "nerf_depth": 1,
            "nerf_max_freqs": 2,
            "nerf_tile_size": 8,
            "nerf_final_head_type": "conv",
            "nerf_embedder_dtype": None,
            "use_x0": True,
            "use_sequential_txt_ids": False,
        },
        (3, 16, 16),
    ),
    "hunyuan_video": TinyModel(
        "HunyuanVideo",
        HUNYUAN_CONFIG,
        (16, 3, 8, 8),
        pooled=16,
        control={"input": (2, 48, 32), "output": (3, 48, 32)},
    ),
    "hunyuan_video_i2v": TinyModel(
        "HunyuanVideoI2V",
        {**HUNYUAN_CONFIG, "in_channels": 33},
        (16, 3, 8, 8),
        pooled=16,
        extra={"concat_latent_image": Noise((1, 16, 3, 8, 8)), "guiding_frame_index": 0},
    ),
    "hunyuan_video_reference": TinyModel(
        "HunyuanVideo",
        HUNYUAN_CONFIG,
        (16, 3, 8, 8),
        pooled=16,
        extra={"ref_latent": Noise((1, 16, 1, 8, 8))},
        one_at_a_time=True,
    ),
    "skyreels_i2v": TinyModel(
        "HunyuanVideoSkyreelsI2V",
        {**HUNYUAN_CONFIG, "in_channels": 32},
        (16, 3, 8, 8),
        pooled=16,
        extra={"concat_latent_image": Noise((1, 16, 3, 8, 8))},
    ),
    "hunyuan_video15": TinyModel(
        "HunyuanVideo15", HUNYUAN15_CONFIG, (32, 3, 8, 8), extra={**HUNYUAN15_EXTRA}, pooled=8
    ),
    "hunyuan_video15_sr": TinyModel(
        "HunyuanVideo15_SR_Distilled",
        {**HUNYUAN15_CONFIG, "in_channels": 98, "meanflow": True},
        (32, 3, 8, 8),
        extra={**HUNYUAN15_EXTRA},
        pooled=8,
    ),
    "hunyuan_image21": TinyModel(
        "HunyuanImage21",
        {
            **HUNYUAN_CONFIG,
            "in_channels": 64,
            "out_channels": 64,
            "vec_in_dim": None,
            "patch_size": [1, 1],
            "axes_dim": [8, 8],
            "byt5": True,
            "meanflow": True,
        },
        (64, 4, 4),
        extra={"conditioning_byt5small": Noise((1, 3, 1472))},
    ),
    "hunyuan_image21_refiner": TinyModel(
        "HunyuanImage21Refiner",
        {
            **HUNYUAN_CONFIG,
            "in_channels": 128,
            "out_channels": 64,
            "vec_in_dim": None,
            "patch_size": [1, 1, 1],
        },
        (64, 1, 4, 4),
        extra={"concat_latent_image": Noise((1, 32, 1, 4, 4)), "noise_augmentation": 0.1},
    ),
    "hunyuan3d": TinyModel(
        "Hunyuan3Dv2",
        {
            "image_model": "hunyuan3d2",
            "in_channels": 8,
            "context_in_dim": 24,
            "hidden_size": 32,
            "mlp_ratio": 2.0,
            "num_heads": 2,
            "depth": 2,
            "depth_single_blocks": 3,
            "qkv_bias": True,
            "guidance_embed": True,
        },
        (8, 16),
    ),
    "hunyuan3d_mini": TinyModel(
        "Hunyuan3Dv2mini",
        {
            "image_model": "hunyuan3d2",
            "in_channels": 8,
            "context_in_dim": 24,
            "hidden_size": 32,
            "mlp_ratio": 2.0,
            "num_heads": 2,
            "depth": 2,
            "depth_single_blocks": 3,
            "qkv_bias": True,
            "guidance_embed": False,
        },
        (8, 16),
    ),
}

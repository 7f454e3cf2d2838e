"""Tiny models of the families that make pictures, other than FLUX's."""

from __future__ import annotations

from typing import Any

from tiny_data import Noise, Ones, TinyModel

QWEN_CONFIG: dict[str, Any] = {
    "image_model": "qwen_image",
    "in_channels": 64,
    "out_channels": 16,
    "num_layers": 4,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "joint_attention_dim": 24,
    "axes_dims_rope": (4, 6, 6),
}

NEXTDIT_CONFIG: dict[str, Any] = {
    "image_model": "lumina2",
    "patch_size": 2,
    "in_channels": 16,
    "dim": 32,
    "cap_feat_dim": 24,
    "n_layers": 4,
    "n_refiner_layers": 1,
    "qk_norm": True,
    "n_heads": 2,
    "n_kv_heads": 1,
    "multiple_of": 16,
    "axes_dims": [4, 6, 6],
    "axes_lens": [300, 512, 512],
    "rope_theta": 10000.0,
    "ffn_dim_multiplier": 1.0,
}

ZIMAGE_CONFIG = {
    **NEXTDIT_CONFIG,
    # Its modulation is 256 wide at least.
    "dim": 256,
    "n_heads": 8,
    "n_kv_heads": 8,
    "axes_dims": [8, 12, 12],
    "rope_theta": 256.0,
    "z_image_modulation": True,
    "time_scale": 1000.0,
    "pad_tokens_multiple": 32,
}

PIXART_CONFIG: dict[str, Any] = {
    "num_heads": 2,
    # Its position embedding needs latents of more than 32 x 32.
    "patch_size": 8,
    "hidden_size": 48,
    "in_channels": 4,
    "depth": 4,
    "caption_channels": 24,
    "model_max_length": 5,
    "input_size": 32,
    "pe_interpolation": 1.0,
}

HYDIT_CONFIG: dict[str, Any] = {
    "depth": 6,
    "hidden_size": 32,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "text_states_dim": 24,
    "text_states_dim_t5": 32,
    "text_len": 5,
    "text_len_t5": 7,
}

HYDIT_EXTRA = {
    "attention_mask": Ones((1, 5)),
    "conditioning_mt5xl": Noise((1, 7, 32)),
    "attention_mask_mt5xl": Ones((1, 7)),
}

IMAGE: dict[str, TinyModel] = {
    "qwen_image": TinyModel(
        "QwenImage",
        QWEN_CONFIG,
        (16, 1, 8, 8),
        extra={"attention_mask": Ones((1, 5))},
        control={"input": (4, 16, 32)},
    ),
    "qwen_image_edit": TinyModel(
        "QwenImage",
        QWEN_CONFIG,
        (16, 1, 8, 8),
        extra={"reference_latents": [Noise((1, 16, 1, 8, 12)), Noise((1, 16, 1, 4, 4))]},
    ),
    "qwen_image_edit_2511": TinyModel(
        "QwenImage",
        {**QWEN_CONFIG, "default_ref_method": "index_timestep_zero"},
        (16, 1, 8, 8),
        extra={"reference_latents": [Noise((1, 16, 1, 8, 12))]},
    ),
    "qwen_image_layered": TinyModel(
        "QwenImage",
        {**QWEN_CONFIG, "default_ref_method": "negative_index", "use_additional_t_cond": True},
        (16, 3, 8, 8),
        extra={"reference_latents": [Noise((1, 16, 1, 8, 8))]},
    ),
    "lumina2": TinyModel("Lumina2", NEXTDIT_CONFIG, (16, 8, 8)),
    "z_image": TinyModel("ZImage", ZIMAGE_CONFIG, (16, 8, 8)),
    "z_image_omni": TinyModel(
        "ZImage",
        {**ZIMAGE_CONFIG, "siglip_feat_dim": 20},
        (16, 8, 8),
        extra={"reference_latents": [Noise((1, 16, 8, 8))]},
    ),
    "z_image_pixel": TinyModel(
        "ZImagePixelSpace",
        {
            **ZIMAGE_CONFIG,
            "image_model": "zimage_pixel",
            "patch_size": 4,
            "in_channels": 3,
            "decoder_in_channels": 48,
            "decoder_hidden_size": 16,
            "decoder_num_res_blocks": 1,
            "decoder_max_freqs": 2,
            "use_x0": True,
        },
        (3, 16, 16),
    ),
    "sd3": TinyModel(
        "SD3",
        {
            "in_channels": 16,
            "pos_embed_scaling_factor": None,
            "patch_size": 2,
            "out_channels": 16,
            "depth": 1,
            "num_blocks": 5,
            "input_size": None,
            "adm_in_channels": 16,
            "context_embedder_config": {
                "target": "torch.nn.Linear",
                "params": {"in_features": 24, "out_features": 64},
            },
            "qk_norm": "rms",
            "x_block_self_attn_layers": [0, 1],
            "mlp_ratio": 2.0,
        },
        (16, 8, 8),
        pooled=16,
        control={"output": (5, 16, 64)},
    ),
    "aura_flow": TinyModel(
        "AuraFlow",
        {
            "max_seq": 64,
            "cond_seq_dim": 24,
            "n_double_layers": 2,
            "n_layers": 5,
            "dim": 32,
            "n_heads": 2,
            "global_conddim": 32,
        },
        (4, 8, 8),
    ),
    "hidream": TinyModel(
        "HiDream",
        {
            "image_model": "hidream",
            "attention_head_dim": 16,
            "axes_dims_rope": [8, 4, 4],
            "caption_channels": [24, 20],
            "max_resolution": [16, 16],
            "in_channels": 16,
            "llama_layers": [0, 1, 2, 3, 3],
            "num_attention_heads": 2,
            "num_routed_experts": 4,
            "num_activated_experts": 2,
            "num_layers": 2,
            "num_single_layers": 3,
            "out_channels": 16,
            "patch_size": 2,
            "text_emb_dim": 16,
        },
        (16, 8, 8),
        pooled=16,
        extra={"conditioning_llama3": Noise((1, 4, 6, 20))},
    ),
    "pixart_alpha": TinyModel(
        "PixArtAlpha",
        {"image_model": "pixart_alpha", "micro_condition": True, **PIXART_CONFIG},
        (4, 40, 40),
        extra={"width": 64, "height": 64},
    ),
    "pixart_sigma": TinyModel(
        "PixArtSigma",
        {"image_model": "pixart_sigma", "micro_condition": False, **PIXART_CONFIG},
        (4, 40, 40),
    ),
    "hunyuan_dit": TinyModel(
        "HunyuanDiT", {"image_model": "hydit", **HYDIT_CONFIG}, (4, 8, 8), extra=HYDIT_EXTRA
    ),
    "hunyuan_dit1": TinyModel(
        "HunyuanDiT1",
        {"image_model": "hydit1", "size_cond": True, "use_style_cond": True, **HYDIT_CONFIG},
        (4, 8, 8),
        extra=HYDIT_EXTRA,
    ),
}

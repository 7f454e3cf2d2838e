"""Tiny models of the families that make video, other than Wan and HunyuanVideo."""

from __future__ import annotations

from typing import Any

from tiny_data import Noise, Ones, TinyModel

LTX_CONFIG: dict[str, Any] = {
    "in_channels": 128,
    "num_layers": 4,
    "attention_head_dim": 16,
    "num_attention_heads": 2,
    "cross_attention_dim": 32,
    "caption_channels": 24,
}

COSMOS_CONFIG: dict[str, Any] = {
    "max_img_h": 32,
    "max_img_w": 32,
    "max_frames": 16,
    "in_channels": 16,
    "out_channels": 16,
    "patch_spatial": 2,
    "patch_temporal": 1,
    "model_channels": 32,
    "num_blocks": 4,
    "num_heads": 2,
    "mlp_ratio": 2.0,
    "concat_padding_mask": True,
    "crossattn_emb_channels": 24,
    "pos_emb_cls": "rope3d",
    "pos_emb_interpolation": "crop",
    "use_adaln_lora": True,
    "adaln_lora_dim": 8,
}

COSMOS1_CONFIG = {
    **COSMOS_CONFIG,
    "image_model": "cosmos",
    "block_config": "FA-CA-MLP",
    "block_x_format": "THWBD",
    "pos_emb_learnable": False,
    "affline_emb_norm": True,
    "extra_per_block_abs_pos_emb": True,
    "extra_per_block_abs_pos_emb_type": "learnable",
}

PREDICT2_CONFIG = {
    **COSMOS_CONFIG,
    "image_model": "cosmos_predict2",
    "pos_emb_learnable": True,
    "min_fps": 1,
    "max_fps": 30,
    "extra_per_block_abs_pos_emb": False,
    "rope_enable_fps_modulation": False,
}

COGVIDEO_CONFIG: dict[str, Any] = {
    "image_model": "cogvideox",
    "num_attention_heads": 2,
    "attention_head_dim": 16,
    "time_embed_dim": 16,
    "num_layers": 4,
    "in_channels": 16,
    "patch_size": 2,
    "text_embed_dim": 24,
    "max_text_seq_length": 5,
    "use_learned_positional_embeddings": False,
    "use_rotary_positional_embeddings": True,
}

KANDINSKY_CONFIG: dict[str, Any] = {
    "image_model": "kandinsky5",
    "model_dim": 32,
    "axes_dims": (4, 6, 6),
    "time_dim": 16,
    "ff_dim": 48,
    "visual_embed_dim": 132,
    "in_text_dim": 24,
    "in_text_dim2": 16,
    "num_text_blocks": 1,
    "num_visual_blocks": 4,
}


def without_adapter(network: Any) -> None:
    """Anima's text adapter has a hundred million weights and no part in the denoising."""
    del network.llm_adapter


VIDEO: dict[str, TinyModel] = {
    "ltxv": TinyModel(
        "LTXV",
        {"image_model": "ltxv", **LTX_CONFIG},
        (128, 2, 4, 4),
        extra={"attention_mask": Ones((1, 5))},
    ),
    "ltxav": TinyModel(
        "LTXAV",
        {
            "image_model": "ltxav",
            **LTX_CONFIG,
            "audio_in_channels": 128,
            "audio_attention_head_dim": 8,
            "audio_num_attention_heads": 2,
            "audio_cross_attention_dim": 16,
            "connector_attention_head_dim": 8,
            "connector_num_attention_heads": 2,
            "connector_num_layers": 1,
        },
        ((128, 2, 4, 4), (8, 6, 16)),
        context=48,
    ),
    "cosmos": TinyModel("CosmosT2V", COSMOS1_CONFIG, (16, 2, 8, 8)),
    "cosmos_i2v": TinyModel("CosmosI2V", {**COSMOS1_CONFIG, "in_channels": 17}, (16, 2, 8, 8)),
    "cosmos_predict2": TinyModel("CosmosT2IPredict2", PREDICT2_CONFIG, (16, 1, 8, 8)),
    "cosmos_predict2_i2v": TinyModel(
        "CosmosI2VPredict2", {**PREDICT2_CONFIG, "in_channels": 17}, (16, 2, 8, 8)
    ),
    "anima": TinyModel(
        "Anima",
        {**PREDICT2_CONFIG, "image_model": "anima"},
        (16, 1, 8, 8),
        prepare=without_adapter,
    ),
    "mochi": TinyModel(
        "GenmoMochi",
        {
            "image_model": "mochi_preview",
            "depth": 4,
            "patch_size": 2,
            "num_heads": 2,
            "hidden_size_x": 32,
            "hidden_size_y": 16,
            # The class insists on the size of the feed-forward layer.
            "mlp_ratio_x": 12288 / 32,
            "mlp_ratio_y": 2.0,
            "learn_sigma": False,
            "in_channels": 12,
            "qk_norm": True,
            "qkv_bias": False,
            "out_bias": True,
            "attn_drop": 0.0,
            "patch_embed_bias": True,
            "posenc_preserve_area": True,
            "timestep_mlp_bias": True,
            "attend_to_padding": False,
            "timestep_scale": 1000.0,
            "use_t5": True,
            "t5_feat_dim": 24,
            "t5_token_length": 5,
            "rope_theta": 10000.0,
        },
        (12, 2, 8, 8),
        extra={"attention_mask": Ones((1, 5))},
    ),
    "cogvideox": TinyModel("CogVideoX_T2V", COGVIDEO_CONFIG, (16, 2, 8, 8)),
    "cogvideox15_i2v": TinyModel(
        "CogVideoX_I2V",
        {**COGVIDEO_CONFIG, "in_channels": 32, "patch_size_t": 2, "ofs_embed_dim": 16},
        (16, 2, 8, 8),
        extra={"concat_latent_image": Noise((1, 16, 1, 8, 8))},
    ),
    "cogvideox_inpaint": TinyModel(
        "CogVideoX_Inpaint", {**COGVIDEO_CONFIG, "in_channels": 48}, (16, 2, 8, 8)
    ),
    "kandinsky5": TinyModel("Kandinsky5", KANDINSKY_CONFIG, (16, 2, 8, 8), pooled=16),
    "kandinsky5_image": TinyModel(
        "Kandinsky5Image",
        {**KANDINSKY_CONFIG, "visual_embed_dim": 64},
        (16, 8, 8),
        pooled=16,
    ),
}

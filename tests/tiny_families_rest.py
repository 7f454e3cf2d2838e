"""Tiny models of the newest and rarest families: pictures, sound, 3D."""

from __future__ import annotations

from typing import Any

import torch
from tiny_data import Noise, Ones, TinyModel, Tokens

PIXELDIT_CONFIG: dict[str, Any] = {
    "in_channels": 3,
    "num_groups": 2,
    "hidden_size": 32,
    "pixel_hidden_size": 4,
    "pixel_attn_hidden_size": 16,
    "pixel_num_groups": 2,
    "patch_depth": 4,
    "pixel_depth": 1,
    "patch_size": 4,
    "txt_embed_dim": 24,
    "txt_max_length": 6,
}

AUDIO_CONFIG: dict[str, Any] = {
    "audio_model": "dit1.0",
    "io_channels": 64,
    "embed_dim": 128,
    "cond_token_dim": 768,
    "project_cond_tokens": True,
    "depth": 4,
    "num_heads": 2,
}


def seconds_weights(name: str, learned: bool = True) -> dict[str, Any]:
    """Weights of one of Stable Audio's embedders of a length in seconds."""
    prefix = f"conditioner.conditioners.{name}.embedder.embedding."
    weights = {
        f"{prefix}1.weight": Noise((768, 257 if learned else 256)),
        f"{prefix}1.bias": Noise((768,)),
    }
    return {f"{prefix}0.weights": Noise((128,)), **weights} if learned else weights


def set_frequencies(network: Any) -> None:
    """MiniMax reads its rotary frequencies from the checkpoint."""
    network.rope.inv_freq.copy_(torch.tensor([1.0, 0.1]))


def forget_prompts(network: Any) -> None:
    """HiDream O1 keeps the prompt's keys and values on the network, over the end of a run."""
    network.clear_kv_cache()


REST: dict[str, TinyModel] = {
    "hidream_o1": TinyModel(
        "HiDreamO1",
        {
            "image_model": "hidream_o1",
            "text_config_overrides": {
                "hidden_size": 32,
                "intermediate_size": 48,
                "num_hidden_layers": 4,
                "num_attention_heads": 2,
                "num_key_value_heads": 1,
                "head_dim": 16,
                "rope_dims": [4, 2, 2],
            },
            "vision_config_overrides": {
                "hidden_size": 16,
                "num_heads": 2,
                "intermediate_size": 16,
                "depth": 1,
                "num_position_embeddings": 16,
            },
        },
        (3, 64, 96),
        extra={"text_input_ids": Tokens((1, 6), 1000, ending=(151673,))},
        before_run=forget_prompts,
    ),
    "omnigen2": TinyModel(
        "Omnigen2",
        {
            "image_model": "omnigen2",
            "axes_dim_rope": [4, 6, 6],
            "axes_lens": [64, 64, 64],
            "hidden_size": 32,
            "in_channels": 16,
            "multiple_of": 16,
            "norm_eps": 1e-05,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "num_layers": 4,
            "num_refiner_layers": 1,
            "patch_size": 2,
            "text_feat_dim": 24,
            "timestep_scale": 1000.0,
        },
        (16, 8, 8),
        extra={"reference_latents": [Noise((1, 16, 8, 4))], "attention_mask": Ones((1, 5))},
    ),
    "boogu": TinyModel(
        "Boogu",
        {
            "image_model": "boogu",
            "hidden_size": 32,
            "num_layers": 3,
            "num_double_stream_layers": 2,
            "num_refiner_layers": 1,
            "num_attention_heads": 2,
            "num_kv_heads": 1,
            "multiple_of": 16,
            "axes_dim_rope": (4, 6, 6),
            "axes_lens": (64, 64, 64),
            "instruction_feat_dim": 24,
        },
        (16, 8, 8),
        extra={"attention_mask": Ones((1, 5))},
    ),
    "ernie_image": TinyModel(
        "ErnieImage",
        {
            "image_model": "ernie",
            "hidden_size": 32,
            "num_attention_heads": 2,
            "num_layers": 4,
            "ffn_hidden_size": 48,
            "text_in_dim": 24,
            "rope_axes_dim": (4, 6, 6),
        },
        (128, 4, 4),
    ),
    "ideogram4": TinyModel(
        "Ideogram4",
        {
            "image_model": "ideogram4",
            "in_channels": 128,
            "num_layers": 4,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "intermediate_size": 48,
            "adaln_dim": 16,
            "llm_features_dim": 24,
            "mrope_section": [4, 2, 2],
        },
        (128, 4, 4),
    ),
    "krea2": TinyModel(
        "Krea2",
        {
            "image_model": "krea2",
            "features": 32,
            "tdim": 16,
            "txtdim": 12,
            "heads": 2,
            "kvheads": 1,
            "multiplier": 2,
            "layers": 4,
            "patch": 2,
            "channels": 16,
            "txtlayers": 2,
            "txtheads": 2,
            "txtkvheads": 2,
        },
        (16, 1, 8, 8),
    ),
    "joyimage": TinyModel(
        "JoyImage",
        {
            "image_model": "joyimage",
            "in_channels": 16,
            "hidden_size": 32,
            "patch_size": [1, 2, 2],
            "num_layers": 4,
            "num_attention_heads": 2,
            "text_dim": 24,
            "rope_dim_list": [4, 6, 6],
        },
        (16, 1, 8, 8),
        extra={"reference_latents": [Noise((1, 16, 1, 8, 8))]},
    ),
    "lens": TinyModel(
        "Lens",
        {
            "image_model": "lens",
            "in_channels": 128,
            "out_channels": 32,
            "num_layers": 4,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "enc_hidden_dim": 12,
            "axes_dims_rope": (4, 6, 6),
            "selected_layer_index": (0, 1),
        },
        (128, 4, 4),
    ),
    "mage_flow": TinyModel(
        "MageFlow",
        {
            "image_model": "mage_flow",
            "in_channels": 128,
            "out_channels": 128,
            "num_layers": 4,
            "attention_head_dim": 16,
            "num_attention_heads": 2,
            "joint_attention_dim": 24,
            "axes_dims_rope": (4, 6, 6),
        },
        (128, 4, 4),
    ),
    "minimax_h3": TinyModel(
        "MiniMaxH3",
        {
            "image_model": "minimax_h3",
            "hidden_size": 32,
            "num_layers": 4,
            "token_refiner_num_layers": 1,
            "num_attention_heads": 2,
            "attention_head_dim": 16,
            "ffn_hidden_size": 48,
            "text_dim": 24,
            "timestep_input_dim": 16,
            "time_embed_hidden_size": 16,
            "time_embed_dim": 16,
            "rope_inv_freq_len": 2,
        },
        ((24, 2, 4, 4), (32, 2, 3)),
        prepare=set_frequencies,
    ),
    "pixeldit": TinyModel(
        "PixelDiTT2I", {"image_model": "pixeldit_t2i", **PIXELDIT_CONFIG}, (3, 16, 16)
    ),
    "pid": TinyModel(
        "PiD",
        {
            "image_model": "pid",
            **PIXELDIT_CONFIG,
            "lq_hidden_dim": 16,
            "lq_num_res_blocks": 1,
            "lq_latent_channels": 16,
            "sr_scale": 2,
            "pit_lq_inject": True,
        },
        (3, 32, 32),
        extra={"lq_latent": Noise((1, 16, 2, 2)), "degrade_sigma": Noise((1,))},
    ),
    "seedvr2": TinyModel(
        "SeedVR2",
        {
            "image_model": "seedvr2",
            "norm_eps": 1e-5,
            "num_layers": 4,
            "mlp_type": "swiglu",
            "vid_dim": 64,
            "txt_in_dim": 24,
            "heads": 2,
            "head_dim": 32,
            "rope_dim": 32,
            "mm_layers": 2,
            "expand_ratio": 2,
            "vid_out_norm": True,
        },
        (16, 2, 8, 8),
        extra={"condition": Noise((1, 17, 2, 8, 8))},
    ),
    "ace_step": TinyModel(
        "ACEStep",
        {
            "audio_model": "ace",
            "attention_head_dim": 16,
            "in_channels": 8,
            "inner_dim": 32,
            "max_height": 16,
            "max_position": 64,
            "max_width": 64,
            "mlp_ratio": 2.0,
            "num_attention_heads": 2,
            "num_layers": 4,
            "out_channels": 8,
            "patch_size": [16, 1],
            "rope_theta": 1000000.0,
            "speaker_embedding_dim": 512,
            "text_embedding_dim": 24,
            "ssl_encoder_depths": [1, 1],
            "ssl_latent_dims": [16, 16],
            "ssl_names": ["mert", "m-hubert"],
            "lyric_encoder_vocab_size": 50,
            "lyric_hidden_size": 1024,
        },
        (8, 16, 12),
        extra={"conditioning_lyrics": Tokens((1, 6), 50)},
    ),
    "ace_step15": TinyModel(
        "ACEStep15",
        {
            "audio_model": "ace1.5",
            "hidden_size": 32,
            "intermediate_size": 48,
            "num_heads": 2,
            "num_kv_heads": 1,
            "head_dim": 16,
            "text_hidden_dim": 24,
            "encoder_hidden_size": 32,
            "encoder_num_heads": 2,
            "encoder_intermediate_size": 48,
            "num_dit_layers": 4,
            "num_lyric_layers": 1,
            "num_timbre_layers": 1,
            "num_tokenizer_layers": 1,
            "fsq_dim": 32,
        },
        (64, 20),
        extra={"conditioning_lyrics": Noise((1, 6, 24))},
    ),
    "stable_audio": TinyModel(
        "StableAudio",
        {**AUDIO_CONFIG, "global_cond_dim": 1536},
        (64, 24),
        context=768,
        weights={**seconds_weights("seconds_start"), **seconds_weights("seconds_total")},
    ),
    "stable_audio3": TinyModel(
        "StableAudio3",
        {
            **AUDIO_CONFIG,
            "io_channels": 256,
            "global_cond_dim": 768,
            "global_cond_shared_embed": True,
            "global_cond_type": "adaLN",
            "timestep_features_type": "expo",
            "local_add_cond_dim": 257,
            "num_memory_tokens": 3,
        },
        (256, 24),
        context=768,
        weights=seconds_weights("seconds_total", learned=False),
    ),
    "hunyuan3d_2_1": TinyModel(
        "Hunyuan3Dv2_1",
        {
            "image_model": "hunyuan3d2_1",
            "in_channels": 8,
            "hidden_size": 32,
            "context_dim": 24,
            "depth": 6,
            "num_heads": 2,
            "qkv_bias": False,
            "num_moe_layers": 2,
            "num_experts": 4,
            "guidance_cond_proj_dim": None,
        },
        (8, 16),
    ),
    "triposplat": TinyModel(
        "TripoSplat",
        {
            "image_model": "triposplat",
            "q_token_length": 12,
            "model_channels": 64,
            "cond_channels": 24,
            "num_blocks": 4,
            "num_refiner_blocks": 1,
            "num_head_channels": 32,
            "mlp_ratio": 2,
        },
        ((12, 16), (1, 5)),
        extra={"reference_latents": [Noise((1, 128, 2, 2))]},
    ),
}

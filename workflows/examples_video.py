"""The example workflows that make videos."""

from __future__ import annotations

from functools import partial
from typing import Any

from example_builder import Graph
from example_parts import (
    ACCELERATION,
    COARSE_FIRST,
    FLAWS,
    FOX,
    SEED,
    File,
    Recipe,
    accelerate,
    guided,
    ksampler,
    report,
    save_video,
    simple_schedule,
)

SMALL_WAN = "wan2.1_t2v_1.3B_fp16.safetensors"
LARGE_WAN = "wan2.1_t2v_14B_fp8_scaled.safetensors"


def wan21(
    graph: Graph,
    model_file: str = SMALL_WAN,
    size: tuple[int, int] = (832, 480),
    gpus: int = 1,
    coarse_first: bool = False,
    prefix: str = "wan2_1",
) -> None:
    with graph.group("Model"):
        model = graph.node("UNETLoader", unet_name=model_file)
        shifted = graph.node("ModelSamplingSD3", model=model, shift=8.0)
        clip = graph.node(
            "CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors", type="wan"
        )
        vae = graph.node("VAELoader", vae_name="wan_2.1_vae.safetensors")
    with graph.group(ACCELERATION, below=True, accent=True):
        if gpus > 1:
            shifted = graph.node("AccelSplitAcrossGPUs", model=shifted, gpus=gpus)
        fast = accelerate(graph, shifted, coarse_first=coarse_first)
    with graph.group("Prompt"):
        positive = graph.node("CLIPTextEncode", "Prompt", text=FOX, clip=clip)
        negative = graph.node("CLIPTextEncode", "Negative prompt", text=FLAWS, clip=clip)
        latent = graph.node("EmptyHunyuanLatentVideo", width=size[0], height=size[1], length=33)
    with graph.group("Sampling"):
        sampled = ksampler(graph, fast, (positive, negative), latent, 30, 6.0, "uni_pc")
        image = graph.node("VAEDecode", samples=sampled, vae=vae)
    with graph.group("Result"):
        save_video(graph, prefix, image, 16.0)
        report(graph, fast, sampled)


def wan22(graph: Graph) -> None:
    with graph.group("Models: two experts"):
        experts = {}
        for noise in ("high", "low"):
            file = f"wan2.2_t2v_{noise}_noise_14B_fp8_scaled.safetensors"
            loaded = graph.node("UNETLoader", f"{noise.capitalize()}-noise expert", unet_name=file)
            experts[noise] = graph.node("ModelSamplingSD3", model=loaded, shift=8.0)
        clip = graph.node(
            "CLIPLoader", clip_name="umt5_xxl_fp8_e4m3fn_scaled.safetensors", type="wan"
        )
        vae = graph.node("VAELoader", vae_name="wan_2.1_vae.safetensors")
    with graph.group("Acceleration: one node for each expert", accent=True):
        fast = {
            noise: accelerate(graph, model, f"Performance Mode, {noise} noise")
            for noise, model in experts.items()
        }
    with graph.group("Prompt"):
        positive = graph.node("CLIPTextEncode", "Prompt", text=FOX, clip=clip)
        negative = graph.node("CLIPTextEncode", "Negative prompt", text=FLAWS, clip=clip)
        latent = graph.node("EmptyHunyuanLatentVideo", width=832, height=480, length=81)
    with graph.group("Sampling: high noise, then low noise"):
        steps, switch = 20, 10
        shared: dict[str, Any] = {
            "positive": positive,
            "negative": negative,
            "steps": steps,
            "cfg": 3.5,
            "sampler_name": "euler",
            "scheduler": "simple",
        }
        first = graph.node(
            "KSamplerAdvanced",
            "High noise",
            model=fast["high"],
            latent_image=latent,
            add_noise="enable",
            noise_seed=SEED,
            start_at_step=0,
            end_at_step=switch,
            return_with_leftover_noise="enable",
            **shared,
        )
        second = graph.node(
            "KSamplerAdvanced",
            "Low noise",
            model=fast["low"],
            latent_image=first,
            add_noise="disable",
            noise_seed=0,
            start_at_step=switch,
            end_at_step=steps,
            return_with_leftover_noise="disable",
            **shared,
        )
        image = graph.node("VAEDecode", samples=second, vae=vae)
    with graph.group("Result"):
        save_video(graph, "wan2_2", image, 16.0)
    with graph.group("Reports"):
        report(graph, fast["high"], second, "high-noise ")
        report(graph, fast["low"], second, "low-noise ")


def hunyuan_video(graph: Graph) -> None:
    with graph.group("Model"):
        model = graph.node("UNETLoader", unet_name="hunyuanvideo1.5_720p_t2v_fp16.safetensors")
        shifted = graph.node("ModelSamplingSD3", model=model, shift=7.0)
        clip = graph.node(
            "DualCLIPLoader",
            clip_name1="qwen_2.5_vl_7b_fp8_scaled.safetensors",
            clip_name2="byt5_small_glyphxl_fp16.safetensors",
            type="hunyuan_video_15",
        )
        vae = graph.node("VAELoader", vae_name="hunyuanvideo15_vae_fp16.safetensors")
    with graph.group(ACCELERATION, below=True, accent=True):
        fast = accelerate(graph, shifted)
    with graph.group("Prompt"):
        positive = graph.node("CLIPTextEncode", "Prompt", text=FOX, clip=clip)
        negative = graph.node("CLIPTextEncode", "Negative prompt", text="", clip=clip)
        latent = graph.node("EmptyHunyuanVideo15Latent", width=1280, height=720, length=121)
    with graph.group("Sampling"):
        sampled = guided(
            graph, fast, positive, negative, latent, 6.0, simple_schedule(graph, fast, 30)
        )
        image = graph.node(
            "VAEDecodeTiled", samples=sampled, vae=vae, tile_size=512, temporal_size=64
        )
    with graph.group("Result"):
        save_video(graph, "hunyuan_video_1_5", image, 24.0)
        report(graph, fast, sampled)


def ltx2(graph: Graph) -> None:
    checkpoint_file = "ltx-2-19b-dev-fp8.safetensors"
    frames, fps = 121, 25.0
    with graph.group("Model"):
        checkpoint = graph.node("CheckpointLoaderSimple", ckpt_name=checkpoint_file)
        clip = graph.node(
            "LTXAVTextEncoderLoader",
            text_encoder="gemma_3_12B_it_fp4_mixed.safetensors",
            ckpt_name=checkpoint_file,
        )
        audio_vae = graph.node("LTXVAudioVAELoader", ckpt_name=checkpoint_file)
    with graph.group(ACCELERATION, below=True, accent=True):
        fast = accelerate(graph, checkpoint)
    with graph.group("Prompt"):
        text = graph.node("CLIPTextEncode", "Prompt", text=FOX, clip=clip)
        flaws = graph.node("CLIPTextEncode", "Negative prompt", text=FLAWS, clip=clip)
        conds = graph.node("LTXVConditioning", positive=text, negative=flaws, frame_rate=fps)
        silent = graph.node("EmptyLTXVLatentVideo", width=768, height=512, length=frames)
        sound = graph.node(
            "LTXVEmptyLatentAudio", frames_number=frames, frame_rate=int(fps), audio_vae=audio_vae
        )
        latent = graph.node("LTXVConcatAVLatent", video_latent=silent, audio_latent=sound)
    with graph.group("Sampling"):
        sigmas = graph.node("LTXVScheduler", steps=30, latent=latent)
        sampled = guided(graph, fast, conds[0], conds[1], latent, 4.0, sigmas)
        parts = graph.node("LTXVSeparateAVLatent", av_latent=sampled)
    with graph.group("Result"):
        image = graph.node("VAEDecodeTiled", samples=parts[0], vae=checkpoint["VAE"])
        audio = graph.node("LTXVAudioVAEDecode", samples=parts[1], audio_vae=audio_vae)
        save_video(graph, "ltx_2", image, fps, audio)
    with graph.group("Report"):
        report(graph, fast, sampled)


WAN = "Comfy-Org/Wan_2.1_ComfyUI_repackaged"
WAN22 = "Comfy-Org/Wan_2.2_ComfyUI_Repackaged"
HUNYUAN = "Comfy-Org/HunyuanVideo_1.5_repackaged"
WAN_FILES = (
    File("text_encoders", "umt5_xxl_fp8_e4m3fn_scaled.safetensors", WAN),
    File("vae", "wan_2.1_vae.safetensors", WAN),
)

RECIPES = (
    Recipe(
        "Wan 2.1, text to video",
        "Wan 2.1",
        "text to video",
        "33 frames of 832 × 480 in 30 steps with the small model. The 14B models work in the same "
        "graph.",
        (File("diffusion_models", SMALL_WAN, WAN), *WAN_FILES),
        wan21,
    ),
    Recipe(
        "Wan 2.1, text to video on two GPUs",
        "Wan 2.1",
        "text to video, two GPUs",
        "The same video on two GPUs of a Linux computer: **Split Across GPUs** lets one evaluate "
        "the positive and one the negative prompt. It needs the package ray. With cfg 1 there is "
        "one prompt, and they share its tokens. The report tells who held and sent what.",
        (File("diffusion_models", SMALL_WAN, WAN), *WAN_FILES),
        partial(wan21, gpus=2, prefix="wan2_1_two_gpus"),
    ),
    Recipe(
        "Wan 2.1, 720p",
        "Wan 2.1",
        "720p, coarse first",
        "33 frames of 1280 × 720 in 30 steps with the 14B model. The first steps see the video at "
        "half its width and height.",
        (File("diffusion_models", LARGE_WAN, WAN), *WAN_FILES),
        partial(
            wan21,
            model_file=LARGE_WAN,
            size=(1280, 720),
            coarse_first=True,
            prefix="wan2_1_720p",
        ),
        COARSE_FIRST,
    ),
    Recipe(
        "Wan 2.2, text to video",
        "Wan 2.2",
        "text to video, two experts",
        "81 frames of 832 × 480 in 20 steps: 10 by the high-noise expert, 10 by the low-noise one. "
        "Each expert has a Performance Mode of its own, so they may differ, and a report of its "
        "own. Each remembers only its own steps.",
        (
            File("diffusion_models", "wan2.2_t2v_high_noise_14B_fp8_scaled.safetensors", WAN22),
            File("diffusion_models", "wan2.2_t2v_low_noise_14B_fp8_scaled.safetensors", WAN22),
            *WAN_FILES,
        ),
        wan22,
    ),
    Recipe(
        "HunyuanVideo 1.5, text to video",
        "HunyuanVideo 1.5",
        "text to video",
        "121 frames of 1280 × 720 in 30 steps.",
        (
            File("diffusion_models", "hunyuanvideo1.5_720p_t2v_fp16.safetensors", HUNYUAN),
            File("text_encoders", "qwen_2.5_vl_7b_fp8_scaled.safetensors", HUNYUAN),
            File("text_encoders", "byt5_small_glyphxl_fp16.safetensors", HUNYUAN),
            File("vae", "hunyuanvideo15_vae_fp16.safetensors", HUNYUAN),
        ),
        hunyuan_video,
    ),
    Recipe(
        "LTX-2, text to video with sound",
        "LTX-2",
        "text to video with sound",
        "121 frames of 768 × 512 with sound in 30 steps. The sampler is euler: with an ancestral "
        "one, as in other graphs for this model, fresh noise in every step leaves nothing alike.",
        (
            File("checkpoints", "ltx-2-19b-dev-fp8.safetensors", "Lightricks/LTX-2", ""),
            File("text_encoders", "gemma_3_12B_it_fp4_mixed.safetensors", "Comfy-Org/ltx-2"),
        ),
        ltx2,
    ),
)

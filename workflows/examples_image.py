"""The example workflows that make pictures, and the one that compares two of them."""

from __future__ import annotations

from functools import partial

from example_builder import Graph, Node
from example_parts import (
    ACCELERATION,
    COARSE_FIRST,
    FEW_STEPS,
    SEED,
    SHOP,
    File,
    Recipe,
    accelerate,
    ksampler,
    report,
)


def flux(
    graph: Graph, side: int = 1024, coarse_first: bool = False, prefix: str = "flux_dev"
) -> None:
    with graph.group("Model"):
        model = graph.node("UNETLoader", unet_name="flux1-dev.safetensors")
        clip = graph.node(
            "DualCLIPLoader",
            clip_name1="clip_l.safetensors",
            clip_name2="t5xxl_fp16.safetensors",
            type="flux",
        )
        vae = graph.node("VAELoader", vae_name="ae.safetensors")
    with graph.group(ACCELERATION, below=True, accent=True):
        fast = accelerate(graph, model, coarse_first=coarse_first)
    with graph.group("Prompt"):
        text = graph.node("CLIPTextEncode", "Prompt", text=SHOP, clip=clip)
        positive = graph.node("FluxGuidance", conditioning=text, guidance=3.5)
        negative = graph.node("ConditioningZeroOut", "No negative prompt", conditioning=text)
        latent = graph.node("EmptySD3LatentImage", width=side, height=side, batch_size=1)
    with graph.group("Sampling"):
        sampled = ksampler(graph, fast, (positive, negative), latent, 28, 1.0, "euler")
        image = graph.node("VAEDecode", samples=sampled, vae=vae)
    with graph.group("Result"):
        graph.node("SaveImage", images=image, filename_prefix=prefix)
        report(graph, fast, sampled)


def flux2(graph: Graph) -> None:
    with graph.group("Model"):
        model = graph.node("UNETLoader", unet_name="flux2_dev_fp8mixed.safetensors")
        clip = graph.node(
            "CLIPLoader", clip_name="mistral_3_small_flux2_fp8.safetensors", type="flux2"
        )
        vae = graph.node("VAELoader", vae_name="flux2-vae.safetensors")
    with graph.group(ACCELERATION, below=True, accent=True):
        fast = accelerate(graph, model)
    with graph.group("Prompt"):
        text = graph.node("CLIPTextEncode", "Prompt", text=SHOP, clip=clip)
        guided = graph.node("FluxGuidance", conditioning=text, guidance=4.0)
        guider = graph.node("BasicGuider", model=fast, conditioning=guided)
        latent = graph.node("EmptyFlux2LatentImage", width=1024, height=1024, batch_size=1)
    with graph.group("Sampling"):
        noise = graph.node("RandomNoise", noise_seed=SEED)
        sampler = graph.node("KSamplerSelect", sampler_name="euler")
        sigmas = graph.node("Flux2Scheduler", steps=28, width=1024, height=1024)
        sampled = graph.node(
            "SamplerCustomAdvanced",
            noise=noise,
            guider=guider,
            sampler=sampler,
            sigmas=sigmas,
            latent_image=latent,
        )
        image = graph.node("VAEDecode", samples=sampled, vae=vae)
    with graph.group("Result"):
        graph.node("SaveImage", images=image, filename_prefix="flux2_dev")
        report(graph, fast, sampled)


def qwen_image(graph: Graph) -> None:
    with graph.group("Model"):
        model = graph.node("UNETLoader", unet_name="qwen_image_fp8_e4m3fn.safetensors")
        shifted = graph.node("ModelSamplingAuraFlow", model=model, shift=3.1)
        clip = graph.node(
            "CLIPLoader", clip_name="qwen_2.5_vl_7b_fp8_scaled.safetensors", type="qwen_image"
        )
        vae = graph.node("VAELoader", vae_name="qwen_image_vae.safetensors")
    _image_with_negative(graph, shifted, clip, vae, "qwen_image", 1328, 30, 4.0, "euler")


def z_image(graph: Graph) -> None:
    with graph.group("Model"):
        model = graph.node("UNETLoader", unet_name="z_image_bf16.safetensors")
        shifted = graph.node("ModelSamplingAuraFlow", model=model, shift=3.0)
        clip = graph.node("CLIPLoader", clip_name="qwen_3_4b.safetensors", type="lumina2")
        vae = graph.node("VAELoader", vae_name="ae.safetensors")
    _image_with_negative(graph, shifted, clip, vae, "z_image", 1024, 25, 4.0, "res_multistep")


def z_image_turbo(graph: Graph) -> None:
    with graph.group("Model"):
        model = graph.node("UNETLoader", unet_name="z_image_turbo_bf16.safetensors")
        shifted = graph.node("ModelSamplingAuraFlow", model=model, shift=3.0)
        clip = graph.node("CLIPLoader", clip_name="qwen_3_4b.safetensors", type="lumina2")
        vae = graph.node("VAELoader", vae_name="ae.safetensors")
    with graph.group("Prompt"):
        positive = graph.node("CLIPTextEncode", "Prompt", text=SHOP, clip=clip)
        negative = graph.node("ConditioningZeroOut", "No negative prompt", conditioning=positive)
        latent = graph.node("EmptySD3LatentImage", width=1024, height=1024, batch_size=1)
    with graph.group(ACCELERATION, below=True, accent=True):
        small = graph.node("AccelQuantize", model=shifted, precision="auto", positive=positive)
        fast = graph.node("AccelAttentionBackend", model=small, backend="auto")
    with graph.group("Sampling"):
        sampled = ksampler(graph, fast, (positive, negative), latent, 8, 1.0, "res_multistep")
        image = graph.node("VAEDecode", samples=sampled, vae=vae)
    with graph.group("Result"):
        graph.node("SaveImage", images=image, filename_prefix="z_image_turbo")
        report(graph, fast, sampled)


def _image_with_negative(
    graph: Graph,
    model: Node,
    clip: Node,
    vae: Node,
    name: str,
    size: int,
    steps: int,
    cfg: float,
    sampler: str,
) -> None:
    """The part that Qwen-Image and Z-Image share: guidance with a negative prompt."""
    with graph.group(ACCELERATION, below=True, accent=True):
        fast = accelerate(graph, model)
    with graph.group("Prompt"):
        positive = graph.node("CLIPTextEncode", "Prompt", text=SHOP, clip=clip)
        negative = graph.node("CLIPTextEncode", "Negative prompt", text="", clip=clip)
        latent = graph.node("EmptySD3LatentImage", width=size, height=size, batch_size=1)
    with graph.group("Sampling"):
        sampled = ksampler(graph, fast, (positive, negative), latent, steps, cfg, sampler)
        image = graph.node("VAEDecode", samples=sampled, vae=vae)
    with graph.group("Result"):
        graph.node("SaveImage", images=image, filename_prefix=name)
        report(graph, fast, sampled)


def compare(graph: Graph) -> None:
    with graph.group("Model"):
        model = graph.node("UNETLoader", unet_name="flux1-dev.safetensors")
        clip = graph.node(
            "DualCLIPLoader",
            clip_name1="clip_l.safetensors",
            clip_name2="t5xxl_fp16.safetensors",
            type="flux",
        )
        vae = graph.node("VAELoader", vae_name="ae.safetensors")
    with graph.group(ACCELERATION, below=True, accent=True):
        fast = accelerate(graph, model)
    with graph.group("Prompt"):
        text = graph.node("CLIPTextEncode", "Prompt", text=SHOP, clip=clip)
        positive = graph.node("FluxGuidance", conditioning=text, guidance=3.5)
        negative = graph.node("ConditioningZeroOut", "No negative prompt", conditioning=text)
        latent = graph.node("EmptySD3LatentImage", width=1024, height=1024, batch_size=1)
    images, sampled = {}, {}
    with graph.group("Sampling: one seed, twice"):
        for which, used in (("Baseline", model), ("Accelerated", fast)):
            sampled[which] = ksampler(
                graph, used, (positive, negative), latent, 28, 1.0, "euler", which
            )
            images[which] = graph.node(
                "VAEDecode", f"{which}: decode", samples=sampled[which], vae=vae
            )
    with graph.group("Both pictures"):
        for which, image in images.items():
            prefix = f"compare/{which.lower()}"
            graph.node("SaveImage", which, images=image, filename_prefix=prefix)
    with graph.group("What it costs", accent=True, width=420):
        compared = graph.node(
            "AccelCompareQuality",
            baseline=images["Baseline"],
            accelerated=images["Accelerated"],
        )
        graph.node("PreviewImage", "Where they differ", images=compared["heat_map"])
        graph.node("PreviewAny", "Measures, as text", source=compared["text"])
    with graph.group("What it saves", accent=True, width=420):
        report(graph, fast, sampled["Accelerated"])


FLUX_FILES = (
    File("diffusion_models", "flux1-dev.safetensors", "Comfy-Org/flux1-dev", ""),
    File("text_encoders", "clip_l.safetensors", "comfyanonymous/flux_text_encoders", ""),
    File("text_encoders", "t5xxl_fp16.safetensors", "comfyanonymous/flux_text_encoders", ""),
    File("vae", "ae.safetensors", "Comfy-Org/Lumina_Image_2.0_Repackaged"),
)

RECIPES = (
    Recipe(
        "FLUX.1 dev, text to image",
        "FLUX.1 dev",
        "text to image",
        "A picture of 1024 × 1024 in 28 steps. FLUX.1 krea dev works in the same graph.",
        FLUX_FILES,
        flux,
    ),
    Recipe(
        "FLUX.1 dev, large picture",
        "FLUX.1 dev",
        "large picture, coarse first",
        "A picture of 1536 × 1536 in 28 steps, whose first ones see it at half the side.",
        FLUX_FILES,
        partial(flux, side=1536, coarse_first=True, prefix="flux_dev_large"),
        COARSE_FIRST,
    ),
    Recipe(
        "FLUX.2 dev, text to image",
        "FLUX.2 dev",
        "text to image",
        "A picture of 1024 × 1024 in 28 steps.",
        (
            File("diffusion_models", "flux2_dev_fp8mixed.safetensors", "Comfy-Org/flux2-dev"),
            File("text_encoders", "mistral_3_small_flux2_fp8.safetensors", "Comfy-Org/flux2-dev"),
            File("vae", "flux2-vae.safetensors", "Comfy-Org/flux2-dev"),
        ),
        flux2,
    ),
    Recipe(
        "Qwen-Image, text to image",
        "Qwen-Image",
        "text to image",
        "A picture of 1328 × 1328 in 30 steps. With a Lightning LoRA of 4 or 8 steps there is "
        "hardly anything left to skip.",
        (
            File(
                "diffusion_models",
                "qwen_image_fp8_e4m3fn.safetensors",
                "Comfy-Org/Qwen-Image_ComfyUI",
            ),
            File(
                "text_encoders",
                "qwen_2.5_vl_7b_fp8_scaled.safetensors",
                "Comfy-Org/Qwen-Image_ComfyUI",
            ),
            File("vae", "qwen_image_vae.safetensors", "Comfy-Org/Qwen-Image_ComfyUI"),
        ),
        qwen_image,
    ),
    Recipe(
        "Z-Image, text to image",
        "Z-Image",
        "text to image",
        "A picture of 1024 × 1024 in 25 steps. Z-Image-Turbo needs only 8 steps, so there is "
        "little to skip there.",
        (
            File("diffusion_models", "z_image_bf16.safetensors", "Comfy-Org/z_image"),
            File("text_encoders", "qwen_3_4b.safetensors", "Comfy-Org/z_image_turbo"),
            File("vae", "ae.safetensors", "Comfy-Org/z_image_turbo"),
        ),
        z_image,
    ),
    Recipe(
        "Z-Image-Turbo, text to image",
        "Z-Image-Turbo",
        "few steps",
        "A picture of 1024 × 1024 in 8 steps, where there is little to skip.",
        (
            File("diffusion_models", "z_image_turbo_bf16.safetensors", "Comfy-Org/z_image_turbo"),
            File("text_encoders", "qwen_3_4b.safetensors", "Comfy-Org/z_image_turbo"),
            File("vae", "ae.safetensors", "Comfy-Org/z_image_turbo"),
        ),
        z_image_turbo,
        FEW_STEPS,
    ),
    Recipe(
        "Compare quality, FLUX.1 dev",
        "Compare quality",
        "with and without acceleration",
        "FLUX.1 dev draws one picture twice from one seed. **Compare Quality** measures how far "
        "they are apart, and the report says what was skipped. Change *approximation* and run "
        "again: only the accelerated branch is sampled anew. For another model, exchange the "
        "loaders.",
        FLUX_FILES,
        compare,
    ),
)
